"""Responses on the wire: framing, persistence, pipelining, Expect, and broken applications."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from raw_http import HOST, echo, serving

GET = b"GET /b/k HTTP/1.1\r\n" + HOST + b"\r\n"
Fields = list[tuple[bytes, bytes]]


def answering(status: int, fields: Fields, *bodies: bytes) -> Any:
    """An application that sends this response, one message per body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": status, "headers": fields})
        for number, body in enumerate(bodies, 1):
            more = number < len(bodies)
            await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


def field_lines(answer: bytes) -> list[bytes]:
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


async def test_the_scope_has_the_exact_bytes_of_the_target() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    target = b"/b%2Fk/trail%0A/%ff//../a+b%20c?list-type=2&prefix=%2F%zz?&"
    async with serving(app) as server:
        raw = await server.connect()
        raw.send(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\nX-Two: a\r\nx-two:  b \r\n\r\n")
        await raw.answer()
        assert scopes[1]["client"] == raw.socket().getsockname()
        assert scopes[1]["server"] == ("127.0.0.1", server.port)
    scope = scopes[1]
    assert scope["raw_path"] + b"?" + scope["query_string"] == target
    assert scope["headers"] == [(b"host", b"h"), (b"x-two", b"a"), (b"x-two", b"b")]
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("http", "http", "1.1")


async def test_a_response_has_reason_date_and_the_headers_as_given() -> None:
    fields = [(b"ETag", b'"x"'), (b"content-length", b"2")]
    async with serving(answering(403, fields, b"no")) as server:
        answer = await server.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"\r\n\r\nno")
    lines = field_lines(answer)
    assert b'ETag: "x"' in lines
    assert b"connection: close" in lines
    assert sum(line.startswith(b"date: ") for line in lines) == 1


async def test_an_application_may_set_its_own_date() -> None:
    date = b"Fri, 13 Feb 2009 23:31:30 GMT"
    async with serving(answering(200, [(b"Date", date)], b"")) as server:
        raw = await server.connect()
        raw.send(GET)
        _, headers, _ = await raw.answer()
    assert headers["date"] == date.decode()


async def test_a_response_in_one_message_gets_its_length() -> None:
    async with serving(answering(200, [], b"hello")) as server:
        raw = await server.connect()
        for _ in range(2):
            raw.send(GET)
            status, headers, body = await raw.answer()
            assert (status, headers["content-length"], body) == (200, "5", b"hello")


async def test_a_response_of_unknown_length_is_chunked() -> None:
    large = bytes(200_000)
    async with serving(answering(200, [], b"he", b"", b"llo", large, b"")) as server:
        raw = await server.connect()
        for _ in range(2):
            raw.send(GET)
            _, headers = await raw.head()
            assert headers["transfer-encoding"] == "chunked"
            assert "content-length" not in headers
            wire = b"2\r\nhe\r\n3\r\nllo\r\n30d40\r\n" + large + b"\r\n0\r\n\r\n"
            assert await raw.exactly(len(wire)) == wire


async def test_http_1_0_gets_a_response_that_the_end_of_the_connection_ends() -> None:
    async with serving(answering(200, [], b"he", b"llo")) as server:
        answer = await server.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"connection: close" in field_lines(answer)
    assert b"chunked" not in answer


@pytest.mark.parametrize(
    ("method", "status", "fields", "length"),
    [
        (b"HEAD", 200, [(b"content-length", b"77")], "77"),
        (b"HEAD", 200, [], None),
        (b"HEAD", 404, [(b"content-length", b"9")], "9"),
        (b"GET", 304, [(b"content-length", b"9")], "9"),
        (b"GET", 304, [], None),
        (b"DELETE", 204, [(b"content-length", b"0")], None),
        (b"DELETE", 204, [], None),
    ],
)
async def test_responses_that_have_no_body(
    method: bytes, status: int, fields: Fields, length: str | None
) -> None:
    async with serving(answering(status, fields, b"")) as server:
        raw = await server.connect()
        for _ in range(2):
            raw.send(method + b" /b/k HTTP/1.1\r\n" + HOST + b"\r\n")
            got, headers = await raw.head()
            assert (got, headers.get("content-length")) == (status, length)
            assert "transfer-encoding" not in headers
    async with serving(answering(status, fields, b"a body", b"which", b"")) as server:
        ended = method + b" / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        assert (await server.ask(ended)).endswith(b"\r\n\r\n")


async def test_an_application_may_close_the_connection() -> None:
    fields = [(b"connection", b"close"), (b"content-length", b"2")]
    async with serving(answering(200, fields, b"ok")) as server:
        answer = await server.ask(GET + GET)
    assert answer.endswith(b"ok")
    assert field_lines(answer).count(b"connection: close") == 1
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_pipelined_requests_are_served_in_turn() -> None:
    running = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running
        if scope["type"] == "http":
            running += 1
            assert running == 1
            await asyncio.sleep(0)
        await echo(scope, receive, send)
        running -= 1

    wire = b"".join(
        b"PUT /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        b"PUT /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        % (number, number + 1)
        for number in range(0, 2000, 2)
    )
    async with serving(app) as server:
        raw = await server.connect()
        raw.send(wire)
        for number in range(2000):
            described = json.loads((await raw.answer())[2])
            assert described["raw_path"] == f"/{number}"
            assert described["body"] == ("x" if number % 2 else "abc")


async def test_a_half_closed_connection_still_gets_its_answers() -> None:
    async with serving(answering(200, [], b"ok")) as server:
        raw = await server.connect()
        raw.send(GET + GET)
        raw.writer.write_eof()
        answer = await raw.rest()
    assert answer.count(b"HTTP/1.1 200 OK") == 2


# 100 Continue.

EXPECTING = b"PUT /b/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


async def test_100_continue_is_sent_when_the_application_reads_and_not_before() -> None:
    may_read = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await may_read.wait()
        await echo(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(EXPECTING)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await raw.reader.read(1)
        may_read.set()
        assert await raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(b"hello")
        assert json.loads((await raw.answer())[2])["body"] == "hello"
        raw.send(GET)
        assert (await raw.answer())[0] == 200


async def test_100_continue_is_not_sent_when_the_body_is_there_already() -> None:
    async with serving(echo) as server:
        raw = await server.connect()
        raw.send(EXPECTING + b"hello")
        assert json.loads((await raw.answer())[2])["body"] == "hello"


async def test_a_refusal_instead_of_100_continue_closes_the_connection() -> None:
    async with serving(answering(403, [], b"no")) as server:
        answer = await server.ask(EXPECTING)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"100 Continue" not in answer
    assert b"connection: close" in field_lines(answer)


# Applications that break the contract.


async def test_an_application_that_fails_is_answered_500_and_logged(caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("a bug")

    async with serving(app) as server:
        answer = await server.ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert "a bug" not in answer.decode()
    assert "a bug" in caplog.text


async def test_an_application_that_fails_before_its_first_byte_is_answered_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("a bug")

    async with serving(app) as server:
        answer = await server.ask(GET)
    assert re.findall(rb"HTTP/1.1 \d+", answer) == [b"HTTP/1.1 500"]


async def test_an_application_that_says_nothing_is_answered_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    async with serving(app) as server:
        assert (await server.ask(GET)).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("fields", "ending"),
    [([(b"content-length", b"10")], b"\r\n\r\nhello"), ([], b"\r\n\r\n5\r\nhello\r\n")],
)
async def test_an_error_after_the_first_byte_leaves_a_short_body(
    fields: Fields, ending: bytes
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        raise KeyError("a bug")

    async with serving(app) as server:
        answer = await server.ask(GET + GET)
    assert answer.endswith(ending)
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_an_error_in_a_response_without_length_is_a_reset() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        raise KeyError("a bug")

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(b"GET / HTTP/1.0\r\n\r\n" + bytes(1))
        await raw.until(b"hello")
        with pytest.raises(ConnectionResetError):
            await raw.rest()


@pytest.mark.parametrize("bodies", [(b"short",), (b"far too long",), (b"0123456", b"789x")])
async def test_a_response_never_breaks_its_content_length(bodies: tuple[bytes, ...]) -> None:
    async with serving(answering(200, [(b"content-length", b"10")], *bodies)) as server:
        answer = await server.ask(GET + GET)
    body = answer.partition(b"\r\n\r\n")[2]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert len(body) < 10 or answer.startswith(b"HTTP/1.1 500 ")


async def test_a_header_that_would_start_another_is_refused() -> None:
    fields = [(b"x-amz-meta-a", b"b\r\nset-cookie: c")]
    async with serving(answering(200, fields, b"ok")) as server:
        answer = await server.ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer


async def test_a_task_left_behind_cannot_touch_the_next_request() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/first":
            left.extend((receive, send))
        await echo(scope, receive, send)

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n")
        await raw.answer()
        raw.send(b"PUT /second HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nsec")
        receive, send = left
        assert await receive() == {"type": "http.disconnect"}
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raw.send(b"ret")
        assert json.loads((await raw.answer())[2])["body"] == "secret"


async def test_a_second_response_and_unknown_messages_are_errors() -> None:
    errors: list[type[Exception]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        for message in (
            {"type": "http.response.body", "body": b""},
            {"type": "http.response.start", "status": 101, "headers": []},
            {"type": "websocket.accept"},
            start,
            start,
            {"type": "http.response.body", "body": b"ok"},
            start,
        ):
            try:
                await send(message)
            except (RuntimeError, ValueError) as error:
                errors.append(type(error))

    async with serving(app) as server:
        raw = await server.connect()
        raw.send(GET)
        assert (await raw.answer())[2] == b"ok"
    assert errors[-5:] == [RuntimeError, ValueError, RuntimeError, RuntimeError, RuntimeError]


async def test_starlette_and_its_lifespan_state_work() -> None:
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        yield {"greeting": "hello"}
        ended.append("ended")

    async def stream(request: Request) -> StreamingResponse:
        text = request.state.greeting + (await request.body()).decode()

        async def letters() -> Any:
            for letter in text:
                yield letter

        return StreamingResponse(letters())

    app = Starlette(routes=[Route("/s", stream, methods=["PUT"])], lifespan=lifespan)
    async with serving(app) as server:
        raw = await server.connect()
        raw.send(b"PUT /s HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n!")
        await raw.head()
        assert (
            await raw.until(b"0\r\n\r\n")
            == b"".join(b"1\r\n%c\r\n" % letter for letter in b"hello!") + b"0\r\n\r\n"
        )
        raw.send(b"GET /absent HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await raw.answer())[0] == 404
    assert ended == ["ended"]
