"""Authorities, certificates and nodes behind mutual TLS, for tests."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from nodes.http_guard import GuardOptions, bind, serve
from nodes.protocol import Drive
from nodes.server import Registration, build_app
from nodes.tls import NODE_SERVES, TlsCredentials
from s3gw.pki import Authority
from tests.nodes.drives import SECRET

HOST = "127.0.0.1"


class Pki:
    """An authority below `directory`, and certificates that it issues there on demand."""

    def __init__(self, directory: Path, name: str = "test") -> None:
        self.directory = directory
        self.authority = Authority.create(directory / "ca", name, time.time())

    def issue(self, role: str, host: str = HOST, *, now: float | None = None) -> Path:
        """The directory of a certificate; made anew by each call."""
        out = self.directory / f"{role}@{host}"
        self.authority.issue(role, [host], out, time.time() if now is None else now)
        return out

    def credentials(self, role: str, host: str = HOST) -> TlsCredentials:
        return TlsCredentials(self.issue(role, host))


def client_context(trusted: Path, own: Path | None = None) -> ssl.SSLContext:
    """A client that trusts the CA in `trusted` and shows the certificate in `own`, if any; of the
    server's role it asks nothing."""
    context = ssl.create_default_context(cafile=str(trusted / "ca.pem"))
    if own is not None:
        context.load_cert_chain(own / "cert.pem", own / "key.pem")
    return context


@asynccontextmanager
async def serving_tls(
    drives: Mapping[str, Drive],
    tls: ssl.SSLContext | None,
    registration: Registration | None = None,
) -> AsyncIterator[str]:
    """A node over drives as `s3gw node` serves it; gives its URL."""
    listener = bind(HOST, 0)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    app = build_app(drives, SECRET, registration)
    options = GuardOptions(tls=tls, graceful_seconds=1)
    server = asyncio.create_task(serve(app, [listener], options, stop))
    try:
        yield f"{'http' if tls is None else 'https'}://{HOST}:{port}"
    finally:
        stop.set()
        await server


def node_context(pki: Pki) -> ssl.SSLContext:
    return pki.credentials("node").server(NODE_SERVES)
