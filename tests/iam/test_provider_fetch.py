"""Fetching from a provider: over verified TLS, bounded in time and size, never led elsewhere."""

import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from s3gw.identities import web_identity
from s3gw.identities.web_identity import (
    ANSWER_BYTES_MAX,
    HttpFetch,
    ProviderUnreachable,
    WebIdentities,
)
from tests.iam.oidc_provider import CLIENT, Provider


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    made = Provider(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
    yield made
    made.close()


@pytest.fixture
async def fetch() -> AsyncIterator[HttpFetch]:
    made = HttpFetch()
    yield made
    await made.close()


async def test_a_token_is_verified_by_keys_that_were_fetched(
    provider: Provider, fetch: HttpFetch
) -> None:
    issuer = provider.issuer
    found = await WebIdentities(fetch).verify(issuer.token(), lambda _issuer: (CLIENT,))
    assert found.subject == "user-1"
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_certificate_of_a_stranger_is_refused(
    provider: Provider, fetch: HttpFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ProviderUnreachable):
        await fetch(f"{provider.issuer.url}/keys")
    assert provider.issuer.asked == []


async def test_a_redirect_is_not_followed(provider: Provider, fetch: HttpFetch) -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("location", f"{provider.issuer.url}/keys")
        request.end_headers()

    provider.odd["/here"] = redirect
    with pytest.raises(ProviderUnreachable, match="302"):
        await fetch(f"{provider.issuer.url}/here")
    assert provider.issuer.asked == []


async def test_an_answer_without_end_is_cut_off(provider: Provider, fetch: HttpFetch) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        try:
            while sent < 100 * ANSWER_BYTES_MAX:
                sent += request.wfile.write(b"x" * 65_536)
        except OSError:
            pass

    provider.odd["/here"] = endless
    with pytest.raises(ProviderUnreachable, match="too long"):
        await fetch(f"{provider.issuer.url}/here")
    assert sent < 100 * ANSWER_BYTES_MAX


async def test_a_provider_that_does_not_answer_is_given_up(
    provider: Provider, fetch: HttpFetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_identity, "FETCH_SECONDS_MAX", 0.2)
    given_up = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        given_up.wait(30)

    provider.odd["/here"] = stall
    with pytest.raises(ProviderUnreachable, match="cannot be reached"):
        await fetch(f"{provider.issuer.url}/here")
    given_up.set()


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/x", "https://nobody.invalid/x", "https://[/"])
async def test_a_provider_that_is_not_there_is_unreachable(fetch: HttpFetch, url: str) -> None:
    with pytest.raises(ProviderUnreachable):
        await fetch(url)
