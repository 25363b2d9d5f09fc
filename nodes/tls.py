"""Mutual TLS between gateways and nodes: who may talk to whom, and certificates that are replaced.

A directory holds `ca.pem` (one or more CA certificates), `cert.pem` and `key.pem`, and perhaps
`crl.pem`, what each of these CAs has revoked. A certificate says in its subject's organizational
unit (OU) what its owner is: `gateway`, `node`, `etcd`, `client`, `ca` or `server`. Being signed by
the CA is not enough: each side names the roles that it accepts in a peer, and the handshake fails
for any other, before a byte of HTTP is read. A client also checks the host name. A library that
cannot look at roles, but at names alone (gRPC, towards etcd), checks `role_name` instead.

Certificates are replaced while the process runs. A `LiveContext` is what servers and connection
pools hold on to; the context behind it is made anew by `TlsCredentials.refresh` when the files have
changed, and the next connection uses it. No session is ever resumed, since that would skip the
checks of the new context. During a change of the CA `ca.pem` holds both, the old and the new. Open
connections live on, but for those to a peer whose certificate was revoked (`TlsCredentials.cut`).
"""

from __future__ import annotations

import logging
import ssl
import weakref
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)

CA_FILE, CERTIFICATE_FILE, KEY_FILE, CRL_FILE = "ca.pem", "cert.pem", "key.pem", "crl.pem"
GATEWAY, NODE, ETCD, CLIENT, CA, SERVER = "gateway", "node", "etcd", "client", "ca", "server"
ROLES = (GATEWAY, NODE, ETCD, CLIENT, CA, SERVER)
# The end of names that the CA certifies to nobody who asks for them (RFC 6761: never in the DNS).
ROLE_DOMAIN = "roles.invalid"
REVOKED = "the peer's certificate has been revoked"
NODE_SERVES = frozenset({GATEWAY, NODE})
GATEWAY_CALLS = frozenset({NODE})


class TlsError(Exception):
    """The files cannot be used; the message is one line for the operator."""


def is_loopback(host: str) -> bool:
    """Whether a host never leaves this machine: 127.0.0.0/8, ::1 or `localhost`. A name that
    merely resolves to one of these is not trusted to go on doing so.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def role_name(role: str, host: str) -> str:
    """The name that a certificate has if its owner is `host` in this role.

    >>> role_name("etcd", "ETCD1.example")
    'etcd1.example.etcd.roles.invalid'
    >>> role_name("etcd", "fd00::1")
    'fd00-0000-0000-0000-0000-0000-0000-0001.etcd.roles.invalid'
    """
    try:
        label = ip_address(host).exploded.replace(":", "-")
    except ValueError:
        label = host.lower()
    return f"{label}.{role}.{ROLE_DOMAIN}"


def roles_of(certificate: dict[str, Any] | None) -> frozenset[str]:
    """The organizational units in a peer's certificate, as `SSLObject.getpeercert` returns it."""
    subject = (certificate or {}).get("subject", ())
    return frozenset(
        value for part in subject for name, value in part if name == "organizationalUnitName"
    )


class _Checked(ssl.SSLObject):
    """A connection that ends its handshake only with a peer of an accepted role."""

    _cut = False

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        assert isinstance(context, _Context)
        roles = roles_of(self.getpeercert())
        if len(roles) != 1 or not roles <= context.peers:
            names = ", ".join(sorted(roles)) or "none"
            LOG.warning("refused a peer whose certificate has the role %s", names)
            raise ssl.SSLCertVerificationError(f"the peer's certificate has the role {names}")
        if self.serial in context.revoked:  # since the handshake has begun
            raise ssl.SSLCertVerificationError(REVOKED)
        context.connections.add(self)

    @property
    def serial(self) -> int:
        """The serial number of the peer's certificate; 0 without one."""
        return int(str((self.getpeercert() or {}).get("serialNumber", "0")), 16)

    def cut(self) -> None:
        """End the connection where it is next used."""
        self._cut = True

    def read(self, *args: Any) -> Any:
        self._require_whole()
        return super().read(*args)

    def write(self, data: Any) -> int:
        self._require_whole()
        return super().write(data)

    def _require_whole(self) -> None:
        if self._cut:
            raise ssl.SSLCertVerificationError(REVOKED)


class _Context(ssl.SSLContext):
    """What one generation of files says. `peers` are the roles accepted in the peer; `connections`
    and `revoked` serial numbers are those of all generations."""

    peers: frozenset[str] = frozenset()
    connections: weakref.WeakSet[_Checked]
    revoked: set[int]


class LiveContext(ssl.SSLContext):
    """Takes part in a connection only by handing it to the present context. asyncio, for servers
    and for clients, asks a context for nothing but `wrap_bio`."""

    present: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.present.wrap_bio(*args, **kwargs)


class TlsCredentials:
    """The certificate of this process, for all its connections to and from nodes."""

    def __init__(self, directory: str | Path) -> None:
        """Raises TlsError."""
        self.directory = Path(directory)
        key = self.directory / KEY_FILE
        if key.exists() and key.stat().st_mode & 0o077:
            LOG.warning("%s may be read or written by others than its owner: chmod 600 it", key)
        self._lives: list[tuple[LiveContext, bool, frozenset[str]]] = []
        self._connections: weakref.WeakSet[_Checked] = weakref.WeakSet()
        self._revoked: set[int] = set()
        self._stamps = self._read_stamps()
        self._make(server=False, peers=frozenset())

    def server(self, peers: Collection[str]) -> LiveContext:
        """A context that demands a client certificate with one of these roles. Raises TlsError."""
        return self._live(server=True, peers=frozenset(peers))

    def client(self, peers: Collection[str]) -> LiveContext:
        """A context that demands a server certificate for the host called and with one of these
        roles. Raises TlsError."""
        return self._live(server=False, peers=frozenset(peers))

    def refresh(self) -> bool:
        """Use the files as they are now, if they have changed since; whether they were taken over.
        Blocks for a few milliseconds. Raises TlsError when they cannot be used (perhaps only one
        of two was replaced so far): what was used before stays in use, and the next call tries
        again."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return False
        # All are made before any is used: either every context is of the new files or none.
        made = [self._make(server=server, peers=peers) for _, server, peers in self._lives]
        if not made:
            self._make(server=False, peers=frozenset())
        for (live, _, _), context in zip(self._lives, made, strict=True):
            live.present = context
        self._stamps = stamps
        return True

    def changed(self) -> bool:
        """Whether the files are others than those in use. Raises TlsError."""
        return self._read_stamps() != self._stamps

    def cut(self, revoked: Collection[int]) -> int:
        """End the open connections to peers whose certificate has one of these serial numbers, and
        handshakes with them that began before the files said so; how many were open. To be called
        in the thread of the event loop."""
        self._revoked.update(revoked)
        peers = [connection for connection in self._connections if connection.serial in revoked]
        for connection in peers:
            connection.cut()
        return len(peers)

    def pem(self) -> tuple[bytes, bytes, bytes]:
        """CA, key and certificate as text, for a library that wants them so. Raises TlsError."""
        try:
            ca, key, certificate = (
                (self.directory / name).read_bytes()
                for name in (CA_FILE, KEY_FILE, CERTIFICATE_FILE)
            )
        except OSError as error:
            raise TlsError(_said(self.directory, error)) from error
        return ca, key, certificate

    def _live(self, *, server: bool, peers: frozenset[str]) -> LiveContext:
        live = LiveContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        live.present = self._make(server=server, peers=peers)
        self._lives.append((live, server, peers))
        return live

    def _make(self, *, server: bool, peers: frozenset[str]) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.peers = peers
        context.connections = self._connections
        context.revoked = self._revoked
        context.sslobject_class = _Checked
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = not server
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_TICKET
        if server:
            context.num_tickets = 0
        try:
            context.load_verify_locations(self.directory / CA_FILE)
            context.load_cert_chain(
                self.directory / CERTIFICATE_FILE,
                self.directory / KEY_FILE,
                password="",  # an encrypted key is an error, not a question at a terminal
            )
            self._load_revoked(context)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise TlsError(_said(self.directory, error)) from error
        return context

    def _load_revoked(self, context: ssl.SSLContext) -> None:
        """Refuse revoked peers, if there is a list. Raises TlsError, OSError."""
        path = self.directory / CRL_FILE
        if not path.exists():
            return
        context.load_verify_locations(path)
        stored = context.cert_store_stats()
        if stored["crl"] < stored["x509_ca"]:
            # OpenSSL would refuse every peer whose authority has no list.
            raise TlsError(
                f"{path} has lists of {stored['crl']} of the {stored['x509_ca']} authorities in "
                f"{CA_FILE}: append the others'"
            )
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def _read_stamps(self) -> list[Stamp | None]:
        paths = [self.directory / name for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE)]
        crl = self.directory / CRL_FILE
        try:
            return [*map(stamp_of, paths), stamp_of(crl) if crl.exists() else None]
        except OSError as error:
            raise TlsError(_said(self.directory, error)) from error


Stamp = tuple[int, int, int]


def stamp_of(path: Path) -> Stamp:
    """What tells one generation of a file from another: number, size and time. Raises OSError."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _said(directory: Path, error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{directory}: {KEY_FILE} is not the key of {CERTIFICATE_FILE}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read: {error.strerror}"
    reason = (error.reason if isinstance(error, ssl.SSLError) else "") or str(error)
    return f"the certificates in {directory} cannot be used: {reason}"
