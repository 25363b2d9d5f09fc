"""TLS of the S3 port and the admin port: the certificate that clients see.

It comes from any authority, in two PEM files: the certificate with its chain, and the key, which
nobody but its owner may read. Both ports speak TLS 1.2 and 1.3 with forward secrecy and
authenticated encryption only, and HTTP/1.1; who has no TLS gets no answer. Files that are replaced
are used for new connections without a restart (`s3gw.transport.keep_port_certificate`). No session
is resumed: the processes that share a port have no secret in common that a ticket could be sealed
with.
"""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from nodes.tls import LiveContext, Stamp, TlsError, stamp_of
from s3gw import pki
from s3gw.config import Config, ConfigError

# For TLS 1.2; those of 1.3 are all like this.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class PortCertificate:
    """A certificate with its key, and the context of the ports that show it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises TlsError."""
        self.certificate = certificate
        self.key = key
        self._stamps = self._read_stamps()
        self.context = LiveContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.present = self._make()

    def changed(self) -> bool:
        """Whether the files are others than those in use. Raises TlsError."""
        return self._read_stamps() != self._stamps

    def refresh(self) -> bool:
        """Use the files as they are now, if they have changed since; whether they were taken over.
        Raises TlsError when they cannot be used: what was used before stays in use."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return False
        self.context.present = self._make()
        self._stamps = stamps
        return True

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        # A client that renegotiates has the server compute for nothing.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            if self.key.stat().st_mode & 0o077:
                raise TlsError(
                    f"{self.key} may be read or written by others than its owner: chmod 600 it"
                )
            # An encrypted key is an error, not a question at a terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise TlsError(self._said(error)) from error
        return context

    def _read_stamps(self) -> list[Stamp]:
        try:
            for path in (self.certificate, self.key):
                os.close(os.open(path, os.O_RDONLY))  # OpenSSL does not say which it cannot read
            return [stamp_of(self.certificate), stamp_of(self.key)]
        except OSError as error:
            raise TlsError(f"{error.filename} cannot be read: {error.strerror}") from error

    def _said(self, error: Exception) -> str:
        reason = error.reason if isinstance(error, ssl.SSLError) else ""
        if reason == "KEY_VALUES_MISMATCH":
            return f"{self.key} is not the key of {self.certificate}"
        return f"{self.certificate} and {self.key} cannot be used: {reason or error}"


@dataclass(frozen=True)
class Ports:
    """The certificates of the S3 port and of the admin port; None: it speaks plain HTTP."""

    s3: PortCertificate | None
    admin: PortCertificate | None

    @property
    def certificates(self) -> list[PortCertificate]:
        """Each once."""
        return [
            certificate
            for certificate in dict.fromkeys((self.s3, self.admin))
            if certificate is not None
        ]


def open_ports(config: Config, *, started: bool = False) -> Ports:
    """The certificates that the configuration names; the admin port shows that of the S3 port
    unless it has its own. Raises ConfigError when one cannot be used now. In a process of a role
    that has `started` one is shown that has ended since, as it is by the others of the role."""
    s3 = _open(config.s3_tls_cert, config.s3_tls_key, started)
    admin = s3
    if config.admin_tls_cert:
        admin = _open(config.admin_tls_cert, config.admin_tls_key, started)
    return Ports(s3, admin)


def _open(certificate: str, key: str, started: bool) -> PortCertificate | None:
    if not certificate:
        return None
    path = Path(certificate)
    try:
        opened = PortCertificate(path, Path(key))
        info = pki.inspect_file(path)
    except (TlsError, pki.PkiError) as error:
        raise ConfigError(str(error)) from error
    if started:
        return opened
    now = time.time()
    if info.not_after <= now:
        raise ConfigError(f"the certificate {path} has expired: renew it")
    if info.not_before > now:
        raise ConfigError(f"the certificate {path} is not valid yet")
    return opened


def url_of(address: str, certificate: PortCertificate | None) -> str:
    """How clients reach a port that listens at `address` (HOST:PORT). With TLS by a name that the
    certificate has: where the host is not one, by the first that is no wildcard."""
    if certificate is None:
        return f"http://{address}"
    host, _, port = address.rpartition(":")
    plain = pki.plain_host(host.removeprefix("[").removesuffix("]"))
    try:
        names = [pki.plain_host(name) for name in pki.inspect_file(certificate.certificate).hosts]
    except pki.PkiError:
        names = []  # being replaced this moment
    names = [name for name in names if not name.startswith("*")]
    if names and plain not in names:
        host = f"[{names[0]}]" if ":" in names[0] else names[0]
    return f"https://{host}:{port}"
