"""Request heads and chunked bodies as bytes: what is legal, what is refused, and that neither
depends on how the bytes are cut into segments."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.http_head import (
    CHUNK_LINE_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    TRAILER_BYTES_MAX,
    ChunkedBody,
    DateLine,
    ProtocolError,
    find_head,
    parse_head,
    status_line,
    write_fields,
)

GOOD = b"GET /b/k?x=%20&y HTTP/1.1\r\nHost: h\r\nA-b: \t v w \t\r\nEmpty:\r\n\r\n"


def lines(*fields: bytes, request: bytes = b"PUT /b/k HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (request, *fields, b""))


def refusal(head: bytes) -> int:
    with pytest.raises(ProtocolError) as caught:
        parse_head(head)
    return caught.value.status


def test_a_head_is_parsed_into_exact_bytes() -> None:
    head = parse_head(GOOD)
    assert (head.method, head.target, head.version) == ("GET", b"/b/k?x=%20&y", "1.1")
    assert head.headers == [(b"host", b"h"), (b"a-b", b"v w"), (b"empty", b"")]
    assert (head.content_length, head.chunked, head.keep_alive) == (0, False, True)


def test_every_byte_that_a_path_may_hold_arrives_as_it_was_sent() -> None:
    target = b"/" + bytes(range(0x21, 0x7F))
    assert parse_head(lines(b"Host: h", request=b"GET %s HTTP/1.1" % target)).target == target


def test_values_may_hold_bytes_above_ascii() -> None:
    head = parse_head(lines(b"Host: h", b"x-amz-meta-a: caf\xc3\xa9"))
    assert head.headers[1] == (b"x-amz-meta-a", b"caf\xc3\xa9")


@pytest.mark.parametrize(
    ("fields", "length", "chunked"),
    [
        ([b"Content-Length: 0"], 0, False),
        ([b"content-length:18446744073709551"], 18446744073709551, False),
        ([b"Transfer-Encoding: chunked"], 0, True),
        ([b"TRANSFER-ENCODING: Chunked"], 0, True),
    ],
)
def test_a_body_has_one_length(fields: list[bytes], length: int, chunked: bool) -> None:
    head = parse_head(lines(b"Host: h", *fields))
    assert (head.content_length, head.chunked) == (length, chunked)


SMUGGLING = {
    "length and coding": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "coding and length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "two equal lengths": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "negative length": [b"Content-Length: -5"],
    "signed length": [b"Content-Length: +5"],
    "hexadecimal length": [b"Content-Length: 0x5"],
    "length with underscore": [b"Content-Length: 1_0"],
    "length in other digits": ["Content-Length: ٣".encode()],
    "empty length": [b"Content-Length:"],
    "length with a blank": [b"Content-Length: 1 2"],
    "huge length": [b"Content-Length: " + b"9" * 20],
    "two codings": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "a list of codings": [b"Transfer-Encoding: gzip, chunked"],
    "identity": [b"Transfer-Encoding: identity"],
    "nearly chunked": [b"Transfer-Encoding: xchunked"],
    "chunked with vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "quoted chunked": [b'Transfer-Encoding: "chunked"'],
    "blank before the colon": [b"Transfer-Encoding : chunked"],
    "folded line": [b"X-A: b", b" Transfer-Encoding: chunked"],
    "folded with tab": [b"X-A: b", b"\tc"],
    "fold after the request line": [b" X-A: b"],
    "line without colon": [b"no colon here"],
    "empty name": [b": value"],
    "blank in a name": [b"X A: b"],
    "byte above ascii in a name": [b"X\xe9: b"],
    "NUL in a value": [b"X-A: b\0c"],
    "NUL in a name": [b"X\0A: b"],
    "bare CR in a value": [b"X-A: b\rContent-Length: 5"],
    "bare LF in a value": [b"X-A: b\nContent-Length: 5"],
    "bare LF before CRLF": [b"X-A: b\n"],
    "bare CR before CRLF": [b"X-A: b\r"],
    "DEL in a value": [b"X-A: \x7f"],
    "two hosts": [b"Host: other"],
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_two_parsers_could_read_differently_is_refused(name: str) -> None:
    assert refusal(lines(b"Host: h", *SMUGGLING[name])) == 400


REQUEST_LINES = {
    b"GET / HTTP/1.1 ": 400,
    b"GET  / HTTP/1.1": 400,
    b"GET /": 400,
    b"GET": 400,
    b"GET / HTTP/2.0": 505,
    b"GET / HTTP/1.2": 505,
    b"GET / HTTP/0.9": 505,
    b"GET / http/1.1": 400,
    b"GET / HTTP/1.1\t": 400,
    b"GET / HTTP/1.1.1": 400,
    b"PRI * HTTP/2.0": 400,
    b"G(T / HTTP/1.1": 400,
    b"\xffET / HTTP/1.1": 400,
    b"GET /\x80 HTTP/1.1": 400,
    b"GET /\x00 HTTP/1.1": 400,
    b"GET /a\x7f HTTP/1.1": 400,
    b"GET\t/ HTTP/1.1": 400,
    b"GET http://other/b/k HTTP/1.1": 400,
    b"GET HTTP://h/b/k HTTP/1.1": 400,
    b"GET h/b/k HTTP/1.1": 400,
    b"GET ?query HTTP/1.1": 400,
    b"GET * HTTP/1.1": 400,
    b"CONNECT h:80 HTTP/1.1": 400,
}


@pytest.mark.parametrize("line", REQUEST_LINES)
def test_request_lines_that_are_refused(line: bytes) -> None:
    assert refusal(lines(b"Host: h", request=line)) == REQUEST_LINES[line]


def test_options_of_the_whole_server_is_legal() -> None:
    assert parse_head(lines(b"Host: h", request=b"OPTIONS * HTTP/1.1")).target == b"*"


def test_a_host_is_needed_in_http_1_1_only() -> None:
    assert refusal(lines()) == 400
    assert not parse_head(lines(request=b"GET / HTTP/1.0")).keep_alive


def test_http_1_0_has_no_transfer_coding() -> None:
    coded = lines(b"Transfer-Encoding: chunked", request=b"PUT / HTTP/1.0")
    assert refusal(coded) == 400


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"x ,\tclose"])
def test_connection_close_is_found_among_its_tokens(value: bytes) -> None:
    assert not parse_head(lines(b"Host: h", b"Connection: " + value)).keep_alive


def test_several_connection_headers_are_one_list() -> None:
    head = parse_head(lines(b"Host: h", b"Connection: a", b"Connection: close"))
    assert not head.keep_alive


def test_an_expectation_counts_only_with_a_body() -> None:
    expect = b"Expect: 100-Continue"
    assert parse_head(lines(b"Host: h", expect, b"Content-Length: 1")).expects_continue
    assert not parse_head(lines(b"Host: h", expect)).expects_continue
    assert refusal(lines(b"Host: h", b"Expect: tea")) == 417


def test_the_number_of_headers_is_bounded() -> None:
    fields = [b"x: y"] * (HEADERS_MAX - 1)
    assert len(parse_head(lines(b"Host: h", *fields)).headers) == HEADERS_MAX
    assert refusal(lines(b"Host: h", b"x: y", *fields)) == 431


def collect_head(segments: list[bytes], limit: int = HEAD_BYTES_MAX) -> bytes | int:
    """The head found by feeding segments, the status of the refusal, or 0 when incomplete."""
    data = b""
    for segment in segments:
        scanned, data = len(data), data + segment
        try:
            size = find_head(data, scanned, limit)
            if size:
                parse_head(data[:size])
                return data[:size]
        except ProtocolError as error:
            return error.status
    return 0


def test_a_head_up_to_the_limit_is_found_and_one_byte_more_refused() -> None:
    start = b"GET / HTTP/1.1\r\nHost: h\r\nx: "
    exact = start + b"y" * (HEAD_BYTES_MAX - len(start) - 4) + b"\r\n\r\n"
    assert collect_head([exact]) == exact
    longer = exact[:-4] + b"y\r\n\r\n"
    assert collect_head([longer]) == 431
    assert collect_head([longer[:-1]]) == 431


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\nHost: h\n\n", b"\n", b"GET /\r\na: b\n", b"\x16\x03"]
)
def test_what_cannot_become_a_head_is_refused_before_it_ends(data: bytes) -> None:
    assert collect_head([data]) == 400
    assert collect_head([bytes([byte]) for byte in data]) == 400


LINES = [b"Host: h\r\n", b"GET / HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"\r\n\r\n", b"\r\n"]
ALPHABET = st.sampled_from([*LINES, b"\r", b"\n", b" ", b"\t", b":", b"a", b"\0", b"\xff"])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@settings(max_examples=300)
@given(st.lists(ALPHABET, max_size=12).map(b"".join), st.lists(st.integers(0, 400), max_size=8))
def test_the_verdict_on_a_head_does_not_depend_on_segments(data: bytes, cuts: list[int]) -> None:
    whole = collect_head([data], limit=48)
    assert collect_head(cut(data, cuts), limit=48) == whole
    assert collect_head([bytes([byte]) for byte in data], limit=48) == whole


@settings(max_examples=200)
@given(st.binary(max_size=80), st.integers(0, len(GOOD)))
def test_mutated_heads_are_parsed_or_refused_but_never_break(noise: bytes, at: int) -> None:
    head = GOOD[:at] + noise + GOOD[at:]
    result = collect_head([head])
    assert isinstance(result, bytes) or result in (0, 400, 417, 431, 505)


# Chunked bodies.

CHUNKED = b"5\r\nhello\r\n1;name=value\r\n!\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nNEXT"


def decode(segments: list[bytes]) -> tuple[bytes, bytes] | int | None:
    """(body, what follows), the status of the refusal, or None when it has not ended."""
    decoder = ChunkedBody()
    body = b""
    rest = b""
    try:
        for segment in segments:
            if decoder.done:
                rest += segment
            else:
                body += decoder.feed(segment)
    except ProtocolError as error:
        return error.status
    return (body, decoder.rest + rest) if decoder.done else None


def test_a_chunked_body_is_the_same_cut_at_every_offset() -> None:
    expected = (b"hello!0123456789", b"NEXT")
    assert decode([CHUNKED]) == expected
    assert decode([bytes([byte]) for byte in CHUNKED]) == expected
    for first in range(len(CHUNKED)):
        assert decode([CHUNKED[:first], CHUNKED[first:]]) == expected


def test_a_chunked_body_that_ends_early_is_never_complete() -> None:
    complete = CHUNKED.removesuffix(b"NEXT")
    for size in range(len(complete)):
        assert decode([complete[:size]]) is None


BROKEN_CHUNKS = {
    "no size": b"\r\nhello\r\n",
    "not hexadecimal": b"g\r\n",
    "negative": b"-5\r\nhello\r\n",
    "signed": b"+5\r\nhello\r\n",
    "prefixed": b"0x5\r\nhello\r\n",
    "underscore": b"1_0\r\n",
    "blank before": b" 5\r\nhello\r\n",
    "blank after": b"5 \r\nhello\r\n",
    "seventeen digits": b"00000000000000005\r\n",
    "bare LF after the size": b"5\nhello\r\n",
    "bare CR after the size": b"5\rhello\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "data longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "no newline after the data": b"5\r\nhello0\r\n\r\n",
    "bare LF in an extension": b"5;a\n\r\nhello\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n",
    "NUL in an extension": b"5;\0\r\nhello\r\n",
    "endless extension": b"5;" + b"a" * CHUNK_LINE_BYTES_MAX,
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "bare LF trailer": b"0\r\na: b\n\r\n",
    "bare LF at the end": b"0\r\n\n",
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_broken_chunks_are_refused_however_they_are_cut(name: str) -> None:
    data = BROKEN_CHUNKS[name]
    assert decode([data]) == 400
    assert decode([bytes([byte]) for byte in data]) == 400


def test_trailers_are_bounded() -> None:
    line = b"a: " + b"b" * 1000 + b"\r\n"
    trailers = line * (TRAILER_BYTES_MAX // len(line) + 1)
    assert decode([b"0\r\n" + trailers + b"\r\n"]) == 431


CHUNK_ALPHABET = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"0", b"5", b"5\r\nhello\r\n", b"0\r\n\r\n", b"a: b\r\n", b";x", b"z"]
)


@settings(max_examples=300)
@given(
    st.lists(CHUNK_ALPHABET, max_size=10).map(b"".join), st.lists(st.integers(0, 99), max_size=8)
)
def test_the_verdict_on_chunks_does_not_depend_on_segments(data: bytes, cuts: list[int]) -> None:
    whole = decode([data])
    assert decode(cut(data, cuts)) == whole
    assert decode([bytes([byte]) for byte in data]) == whole


@settings(max_examples=100)
@given(st.lists(st.binary(min_size=1, max_size=300)), st.lists(st.integers(0, 9999), max_size=8))
def test_every_body_survives_chunking(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert decode(cut(data, cuts)) == (b"".join(chunks), b"")


# Responses.


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_a_response_header_cannot_start_another(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        write_fields([(b"x", value)], lengthless=False)
    with pytest.raises(ValueError, match="line break"):
        write_fields([(value, b"x")], lengthless=False)


def test_every_status_has_a_reason_phrase() -> None:
    assert status_line(403) == b"HTTP/1.1 403 Forbidden\r\n"
    assert status_line(507) == b"HTTP/1.1 507 Insufficient Storage\r\n"
    assert status_line(799).removeprefix(b"HTTP/1.1 799 ").strip()


def test_the_date_is_formatted_as_rfc_9110_says() -> None:
    date = DateLine()
    assert date.at(784111777.9) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert date.at(784111778.0) == b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
