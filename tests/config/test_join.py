"""Joining: tokens that work once, the server that signs, and the node that asks."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nodes import tls
from nodes.http_guard import GuardOptions, bind, serve
from nodes.tls import TlsCredentials
from s3gw import pki
from s3gw.ca import server_context
from s3gw.join import (
    ADDRESSES_MAX,
    ATTEMPTS_PER_MINUTE,
    Attempts,
    JoinApp,
    JoinError,
    TokenRefused,
    Tokens,
    join,
)
from s3gw.pki import Authority, PkiError

HOST = "127.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "test", time.time())


@pytest.fixture
def tokens(authority: Authority, tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "ca")


def sent(token: str) -> str:
    return token.rpartition(".")[0]


def test_a_token_works_once_also_after_a_restart(tokens: Tokens, tmp_path: Path) -> None:
    token = sent(tokens.make("f" * 64, 60, 1000.0))
    Tokens(tmp_path / "ca").spend(token, 1001.0)
    for again in (tokens, Tokens(tmp_path / "ca")):
        with pytest.raises(TokenRefused):
            again.spend(token, 1001.0)


def test_of_many_that_bring_a_token_at_once_one_wins(tokens: Tokens) -> None:
    token = sent(tokens.make("f" * 64, 60, 1000.0))
    barrier = threading.Barrier(8)

    def bring(_: int) -> bool:
        barrier.wait()
        try:
            tokens.spend(token, 1001.0)
        except TokenRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(bring, range(8))) == 1


def test_wrong_and_expired_tokens_are_refused_and_do_not_spend_the_right_one(
    tokens: Tokens,
) -> None:
    token = sent(tokens.make("f" * 64, 60, 1000.0))
    identifier, secret = token.split(".")
    other = sent(tokens.make("f" * 64, 60, 1000.0))
    wrong = [
        "",
        ".",
        identifier,
        f"{identifier}.",
        f"{identifier}.{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
        f"{identifier}.{other.split('.')[1]}",
        f"{'0' * 16}.{secret}",
        f"../tokens/{identifier}.{secret}",
        token + "\n",
        token.upper(),
    ]
    for text in wrong:
        with pytest.raises(TokenRefused):
            tokens.spend(text, 1001.0)
    with pytest.raises(TokenRefused):
        tokens.spend(token, 1060.0)
    tokens.spend(token, 1059.0)


def test_the_secret_is_not_kept_and_old_tokens_are_forgotten(
    tokens: Tokens, tmp_path: Path
) -> None:
    token = sent(tokens.make("f" * 64, 60, 1000.0))
    spent = sent(tokens.make("f" * 64, 60, 1000.0))
    tokens.spend(spent, 1001.0)
    files = [path for path in (tmp_path / "ca").rglob("*") if path.is_file()]
    assert all(token.split(".")[1] not in path.read_text() for path in files)
    tokens.make("f" * 64, 60, 2000.0)
    kept = [p for name in ("tokens", "tokens-spent") for p in (tmp_path / "ca" / name).iterdir()]
    assert len(kept) == 1


def test_attempts_are_limited_per_address_in_bounded_memory() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    allowed = [attempts.allow("a") for _ in range(ATTEMPTS_PER_MINUTE + 5)]
    assert allowed == [True] * ATTEMPTS_PER_MINUTE + [False] * 5
    assert attempts.allow("b")
    clock.now += 60
    assert attempts.allow("a")
    for number in range(ADDRESSES_MAX * 2):
        attempts.allow(str(number))
    assert len(attempts._since) == ADDRESSES_MAX


@contextmanager
def signing(directory: Path, authority: Authority, role: str = tls.CA) -> Iterator[str]:
    """A join server in a thread of its own, as `join` blocks; gives its URL."""
    own = directory / f"server-{role}"
    authority.issue(role, [HOST], own, time.time())
    listener = bind(HOST, 0)
    port = listener.getsockname()[1]
    started, stops = threading.Event(), []

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        started.set()
        app: Any = JoinApp(authority, Tokens(directory / "ca"), time.time)
        options = GuardOptions(tls=server_context(own), graceful_seconds=1)
        await serve(app, [listener], options, stop)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    started.wait()
    try:
        yield f"https://{HOST}:{port}"
    finally:
        stops[0]()
        thread.join()


def test_a_node_joins_with_a_token_and_a_second_cannot_use_it(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    token = tokens.make(authority.fingerprint, 60, time.time())
    with signing(tmp_path, authority) as url:
        join(url, token, ["n1.example", "10.0.0.7"], tmp_path / "n1")
        info = pki.inspect(tmp_path / "n1")
        assert (info.role, info.hosts) == ("node", ("n1.example", "10.0.0.7"))
        assert (tmp_path / "n1" / "key.pem").stat().st_mode & 0o777 == 0o600
        TlsCredentials(tmp_path / "n1")
        with pytest.raises(JoinError, match="the token is not valid"):
            join(url, token, ["n2"], tmp_path / "n2")
    assert not (tmp_path / "n2" / "cert.pem").exists()


def test_the_list_of_the_revoked_comes_along_and_joined_nodes_can_be_revoked(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    def token() -> str:
        return tokens.make(authority.fingerprint, 60, time.time())

    one, two = tmp_path / "one", tmp_path / "two"
    with signing(tmp_path, authority) as url:
        join(url, token(), ["n1"], one)
        assert pki.revoked(one) == frozenset()
        found = authority.serials_of("n1")
        assert found == {authority.require_own(one / "cert.pem"): "node"}
        authority.revoke(found, time.time())
        join(url, token(), ["n2"], two)
        assert pki.revoked(two) == found.keys()
        connection = http.client.HTTPSConnection(
            HOST, int(url.rpartition(":")[2]), context=ssl._create_unverified_context()
        )
        connection.request("GET", "/v1/crl")
        answer = json.loads(connection.getresponse().read())
        connection.close()
    assert answer == {"crl": (tmp_path / "ca" / "crl.pem").read_text()}


def test_a_token_for_some_hosts_is_good_for_no_others_and_a_mistake_does_not_spend_it(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    with pytest.raises(PkiError, match="not a host name"):
        tokens.make(authority.fingerprint, 60, time.time(), ["*.example"])
    token = tokens.make(authority.fingerprint, 60, time.time(), ["N1.example", "::1"])
    with signing(tmp_path, authority) as url:
        with pytest.raises(JoinError, match="the token is not for gw1"):
            join(url, token, ["n1.example", "gw1"], tmp_path / "n1")
        join(url, token, ["n1.example", "0:0::1"], tmp_path / "n1")
    assert pki.inspect(tmp_path / "n1").hosts == ("n1.example", "::1")


def test_names_of_gateways_and_etcd_want_a_token_that_is_bound_to_them(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    authority.issue(tls.ETCD, ["Etcd1", "10.0.0.1"], tmp_path / "etcd", time.time())
    authority.issue(tls.NODE, ["n1"], tmp_path / "issued", time.time())
    token = tokens.make(authority.fingerprint, 60, time.time())
    bound = tokens.make(authority.fingerprint, 60, time.time(), ["10.0.0.1"])
    reopened = Authority.open(tmp_path / "ca")
    with signing(tmp_path, reopened) as url:
        for stolen in (["etcd1"], ["n1", "10.0.0.1"], [HOST]):  # HOST: the authority's own
            with pytest.raises(JoinError, match=f"{stolen[-1]} has a certificate in another role"):
                join(url, token, stolen, tmp_path / "n1")
        join(url, token, ["n1"], tmp_path / "n1")
        join(url, bound, ["10.0.0.1"], tmp_path / "n2")
    assert pki.inspect(tmp_path / "n2").role == "node"


def test_tokens_and_authorities_of_older_versions_work(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    token = sent(tokens.make("f" * 64, 60, 1000.0))
    path = tmp_path / "ca" / "tokens" / token.split(".")[0]
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps({name: kept[name] for name in ("secret_sha256", "expires")}))
    assert authority.issued_to_others(tls.NODE, ["gw1"]) == []  # no list yet
    tokens.spend(token, 1001.0, ["gw1"])


def test_a_node_gives_its_token_to_nobody_but_the_authority_that_it_names(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    """Another authority, and a node of the right one that plays the authority."""
    token = tokens.make(authority.fingerprint, 60, time.time())
    (tmp_path / "evil").mkdir()
    evil = Authority.create(tmp_path / "evil" / "ca", "test", time.time())
    with signing(tmp_path / "evil", evil) as url, pytest.raises(JoinError, match="is not the one"):
        join(url, token, ["n1"], tmp_path / "n1")
    # The evil server may show the right certificate, but has not the key of one that it signed.
    evil.bundle = authority.bundle
    with signing(tmp_path / "evil", evil) as url, pytest.raises(JoinError, match="verify failed"):
        join(url, token, ["n1"], tmp_path / "n1")
    with (
        signing(tmp_path, authority, tls.NODE) as url,
        pytest.raises(JoinError, match="not the certificate authority"),
    ):
        join(url, token, ["n1"], tmp_path / "n1")
    tokens.spend(sent(token), time.time())  # nobody has used it


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1", "https://", "127.0.0.1:1", "https://h/x"),
        *("https://h:99999", "https://h:port", "https://[::1"),
    ],
)
def test_where_to_join_must_be_https(url: str, tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="is not https"):
        join(url, f"{'0' * 16}.{'a' * 22}.{'f' * 64}", ["n"], tmp_path / "n")


def test_trouble_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="incomplete"):
        join("https://127.0.0.1:1", "nonsense", ["n"], tmp_path / "n")
    with pytest.raises(JoinError, match="refused"):
        join("https://127.0.0.1:1", f"{'0' * 16}.{'a' * 22}.{'f' * 64}", ["n"], tmp_path / "n")


def test_the_endpoint_is_bounded_and_says_the_same_of_every_wrong_token(
    authority: Authority, tokens: Tokens, tmp_path: Path
) -> None:
    request = pki.make_request(tmp_path / "own", ["n1"]).decode()
    token = sent(tokens.make(authority.fingerprint, 60, time.time()))
    expired = sent(tokens.make(authority.fingerprint, 60, time.time() - 3600))
    spent = sent(tokens.make(authority.fingerprint, 60, time.time()))
    tokens.spend(spent, time.time())
    context = ssl.create_default_context(cadata=authority.bundle.decode())
    with signing(tmp_path, authority) as url:

        def post(body: str | bytes, path: str = "/v1/join") -> tuple[int, bytes]:
            connection = http.client.HTTPSConnection(url[8:], context=context, timeout=10)
            connection.request("POST", path, body)
            answer = connection.getresponse()
            found = answer.status, answer.read()
            connection.close()
            return found

        wrong = [f"{'0' * 16}.{'a' * 22}", "nonsense", expired, spent]
        answers = {post(json.dumps({"token": text, "request": request})) for text in wrong}
        assert answers == {(403, b'{"error": "the token is not valid"}')}
        assert post(b"x" * 20_000)[0] == 413
        for body in (b"", b"[]", b"\xff", b'{"token": 1, "request": ""}'):
            assert post(body)[0] == 400
        assert post(b"{}", "/v1/ca")[0] == 404
        # The tenth attempt from this address, and the one too many.
        assert post(json.dumps({"token": token, "request": "no request"}))[0] == 400
        assert post(json.dumps({"token": token, "request": request}))[0] == 429
    tokens.spend(token, time.time())
