"""`s3gw ca …`: the cluster's certificate authority on the command line."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nodes import tls
from nodes.http_guard import BindError, GuardOptions, bind, serve
from s3gw.config import ConfigError, host_and_port
from s3gw.join import TOKEN_SECONDS, JoinApp, Tokens
from s3gw.logs import configure
from s3gw.pki import Authority, PkiError

EXIT_FAILED = 2
SERVER_DIRECTORY = "server"
GRACEFUL_SECONDS = 5.0


def add_arguments(root: argparse.ArgumentParser) -> None:
    """Declare the commands of `ca`; each sets `run`."""
    actions = root.add_subparsers(dest="action", required=True)

    def action(name: str, run: Callable[[argparse.Namespace], None], text: str) -> _Parser:
        parser = actions.add_parser(name, help=text, description=text)
        parser.add_argument("--dir", required=True, type=Path, help="the authority's directory")
        parser.set_defaults(run=lambda arguments: _guarded(run, arguments))
        return parser

    init = action("init", _init, "make an authority: a key and a certificate for ten years")
    init.add_argument("--name", default="s3gw", help="its name (s3gw)")
    issue = action("issue", _issue, "make or renew a certificate: a year, with key and CA")
    roles = [role for role in tls.ROLES if role != tls.CA]
    issue.add_argument("--role", required=True, choices=roles, help="what its owner is")
    issue.add_argument("--host", required=True, help="HOST[,HOST…]: names and addresses of it")
    issue.add_argument("--out", required=True, type=Path, help="directory for the three files")
    revoke = action("revoke", _revoke, "shut out the owners of certificates: a new crl.pem")
    revoke.add_argument("--host", help="every certificate for this name or address")
    revoke.add_argument("--role", choices=tls.ROLES, help="with --host: of this role only")
    revoke.add_argument("--cert", type=Path, help="the certificate in this PEM file")
    token = action("token", _token, "print a token with which one node can join once")
    token.add_argument("--host", help="HOST[,HOST…]: only for a node at these")
    token.add_argument("--ttl", type=float, default=TOKEN_SECONDS, help="seconds it lasts (3600)")
    server = action("serve", _serve, "sign certificates for nodes that bring a token")
    server.add_argument("--listen", required=True, help="HOST:PORT")
    server.add_argument("--host", help="HOST[,HOST…]: its names, if not that of --listen")


_Parser = argparse.ArgumentParser


def _guarded(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    try:
        run(arguments)
    except (PkiError, tls.TlsError, ConfigError, BindError) as error:
        print(f"s3gw: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _init(arguments: argparse.Namespace) -> None:
    authority = Authority.create(arguments.dir, arguments.name, time.time())
    print(f"made an authority in {arguments.dir}, fingerprint {authority.fingerprint}")


def _issue(arguments: argparse.Namespace) -> None:
    hosts = arguments.host.split(",")
    Authority.open(arguments.dir).issue(arguments.role, hosts, arguments.out, time.time())
    print(f"{arguments.out}: {arguments.role} {', '.join(hosts)}, for a year")


def _revoke(arguments: argparse.Namespace) -> None:
    authority = Authority.open(arguments.dir)
    found: dict[int, str] = {}
    if arguments.host:
        found |= authority.serials_of(arguments.host, arguments.role or "")
        if not found:
            raise PkiError(f"no certificate was issued for {arguments.host}")
    if arguments.cert:
        found[authority.require_own(arguments.cert)] = str(arguments.cert)
    if not found:
        raise PkiError("name certificates to be revoked with --host or --cert")
    authority.revoke(found, time.time())
    for serial, what in found.items():
        print(f"revoked {serial:x} ({what})")
    print(f"{arguments.dir / tls.CRL_FILE}: copy it to the directory of certificates of all others")


def _token(arguments: argparse.Namespace) -> None:
    fingerprint = Authority.open(arguments.dir).fingerprint
    hosts = arguments.host.split(",") if arguments.host else []
    print(Tokens(arguments.dir).make(fingerprint, arguments.ttl, time.time(), hosts))


def _serve(arguments: argparse.Namespace) -> None:
    host, port = host_and_port(arguments.listen)
    authority = Authority.open(arguments.dir)
    own = arguments.dir / SERVER_DIRECTORY
    names = arguments.host.split(",") if arguments.host else [host]
    authority.issue(tls.CA, names, own, time.time())
    context = server_context(own)
    listener = bind(host, port)
    configure("warning")
    app = JoinApp(authority, Tokens(arguments.dir), time.time, _say)
    options = GuardOptions(
        head_seconds=10,
        keep_alive_seconds=10,
        body_idle_seconds=10,
        send_idle_seconds=10,
        connections_max=256,
        graceful_seconds=GRACEFUL_SECONDS,
        tls=context,
    )

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        _say(f"signing for nodes on https://{arguments.listen}")
        await serve(app, [listener], options, stop)

    asyncio.run(run())


def server_context(directory: Path) -> ssl.SSLContext:
    """TLS of the join server: whoever joins has no certificate yet. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(directory / tls.CERTIFICATE_FILE, directory / tls.KEY_FILE)
    except OSError as error:
        raise tls.TlsError(f"the certificate in {directory} cannot be used: {error}") from error
    return context


def _say(text: str) -> None:
    print(text, flush=True)
