"""Calls of the admin API over HTTP, signed by root. The only importer of httpx here."""

from __future__ import annotations

import json
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from s3gw.auth.signer import sign

TIMEOUT_SECONDS = 60.0
RUN_SECONDS = 24 * 3600.0
SERVICE = b"s3gw"


class Unreachable(Exception):
    """The admin port could not be asked, or its answer is not one of it."""


class Refused(Exception):
    """The admin port refused: its code and message."""


class AdminClient:
    """The admin API at `endpoint`. `transport` is for tests."""

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        region: str,
        *,
        ca: str = "",
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ca` is a file of the authorities to be trusted, if not those of the system; with it an
        endpoint without a scheme is https. Raises Unreachable when the endpoint is no URL, or that
        file is none."""
        scheme = "https" if ca else "http"
        parts = urlsplit(endpoint if "://" in endpoint else f"{scheme}://{endpoint}")
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise Unreachable(f"{endpoint!r} is not the address of an admin port")
        self._host = parts.netloc
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._keys = {"access_key": access_key, "secret_key": secret_key, "region": region}
        self._clock = clock
        # A proxy of the environment must not see, or answer, what is between us and the store.
        self._http = httpx.Client(
            transport=transport,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=False,
            verify=_trust(ca, parts.scheme),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        *,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """The JSON answer. `path` is percent-encoded (`segment`). Raises Unreachable, Refused."""
        pairs = "&".join(f"{name}={quote(str(v), safe='~')}" for name, v in (query or {}).items())
        target = f"{path}?{pairs}" if pairs else path
        content = b"" if body is None else json.dumps(body).encode()
        signed = sign(
            method,
            target.encode(),
            # Signatures count seconds: two equal requests within one are told apart by the nonce.
            {"host": self._host, "x-s3gw-nonce": secrets.token_hex(16)},
            content,
            now=self._clock(),
            service=SERVICE,
            **self._keys,
        )
        try:
            url = httpx.URL(self._base, raw_path=target.encode())
            reply = self._http.request(
                method, url, content=content, headers=signed, timeout=seconds
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(f"{self._base} does not answer: {error}") from error
        try:
            answer = reply.json()
        except ValueError as error:
            raise Unreachable(f"{self._base} is no admin port: {reply.status_code}") from error
        if reply.status_code == 200:
            return answer
        if not isinstance(answer, dict):
            raise Unreachable(f"{self._base} is no admin port: {reply.status_code}")
        raise Refused(f"{answer.get('error')}: {answer.get('message')}")


def _trust(ca: str, scheme: str) -> ssl.SSLContext:
    """What a client trusts. Raises Unreachable."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody; the system's would take 20 ms
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise Unreachable(f"{ca} holds no certificate authority: {error}") from error


def segment(text: str) -> str:
    """One segment of a path, percent-encoded."""
    return quote(text, safe="~")
