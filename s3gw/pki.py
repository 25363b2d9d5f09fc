"""The cluster's own certificate authority. The only importer of `cryptography`.

A directory holds the authority: `ca.key` (0600), `ca.pem`, and `issued`, with a line `role name`
for every host name and address that an operator has issued a certificate for. What it signs says in
its subject's organizational unit which role its owner has (`nodes.tls`), and in its alternative
names which hosts it answers for. Keys are on the curve P-256.

`ca.pem` may hold several certificates: the authority's own is the one that `ca.key` belongs to. The
others are former or future authorities, trusted beside it while certificates are being replaced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodes.tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from s3gw.files import replace_file, sync_directory, write_new

CA_KEY_FILE = "ca.key"
ISSUED_FILE = "issued"
CA_DAYS = 3650
CERTIFICATE_DAYS = 365
# Clocks of a cluster differ: a certificate is valid a little before it was made.
BACKDATED = timedelta(hours=1)
HOSTS_MAX = 32
NAME_CHARACTERS_MAX = 64
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")


class PkiError(Exception):
    """The authority or a certificate cannot be made or used; one line for the operator."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says. `not_after` in Unix seconds."""

    role: str
    hosts: tuple[str, ...]
    not_after: float


class Authority:
    """A certificate authority, opened from its directory."""

    def __init__(
        self,
        directory: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        bundle: bytes,
    ) -> None:
        self._issued = directory / ISSUED_FILE
        self._key = key
        self._certificate = certificate
        self.bundle = bundle
        """All certificates to be trusted, PEM."""

    @classmethod
    def create(cls, directory: Path, name: str, now: float) -> Authority:
        """Make an authority valid for ten years in a directory that has none. Raises PkiError."""
        if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
            raise PkiError(f"the name must have 1 to {NAME_CHARACTERS_MAX} characters")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = _key_usage(signs_certificates=True)
        certificate = (
            _builder(subject, subject, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        bundle = certificate.public_bytes(serialization.Encoding.PEM)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_new(directory / CA_KEY_FILE, _private_pem(key), 0o600)
            write_new(directory / CA_FILE, bundle, 0o644)
        except FileExistsError as error:
            raise PkiError(f"{error.filename} exists: an authority is never overwritten") from error
        except OSError as error:
            raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
        return cls(directory, key, certificate, bundle)

    @classmethod
    def open(cls, directory: Path) -> Authority:
        """Raises PkiError."""
        key = _read_key(directory / CA_KEY_FILE)
        bundle = _read(directory / CA_FILE)
        for certificate in _certificates(bundle, directory / CA_FILE):
            if certificate.public_key() == key.public_key():
                return cls(directory, key, certificate, bundle)
        raise PkiError(f"no certificate in {directory / CA_FILE} is that of {CA_KEY_FILE}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's own certificate, in hexadecimal."""
        return self._certificate.fingerprint(hashes.SHA256()).hex()

    def issue(self, role: str, hosts: Sequence[str], directory: Path, now: float) -> None:
        """A certificate for a year, with key and CA beside it. A key that is there stays, so that
        a renewal replaces one file, whole or not at all. Raises PkiError."""
        names = _alternative_names(hosts)
        if (directory / CA_KEY_FILE).exists():
            raise PkiError(f"{directory} is the directory of an authority: its ca.pem must stay")
        try:
            key = own_key(directory)
            replace_file(directory / CA_FILE, self.bundle, 0o644)
        except OSError as error:
            raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
        self._record(role, hosts)
        try:
            pem = self._sign(key.public_key(), role, names, now)
            replace_file(directory / CERTIFICATE_FILE, pem, 0o644)
        except OSError as error:
            raise PkiError(f"{directory} cannot be written: {error.strerror}") from error

    def sign_request(self, request: Request, role: str, now: float) -> bytes:
        """A certificate, PEM, for the key and the hosts of a request; what else the request asks
        for does not count."""
        return self._sign(request.public_key, role, _alternative_names(request.hosts), now)

    def issued_to_others(self, role: str, hosts: Sequence[str]) -> list[str]:
        """Which of these hosts `issue` has certified in another role. Raises PkiError."""
        try:
            lines = self._issued.read_text().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeError) as error:
            raise PkiError(f"{self._issued} cannot be read: {error}") from error
        issued = (line.partition(" ") for line in lines)
        others = {name for owner, _, name in issued if owner != role}
        return [host for host in hosts if plain_host(host) in others]

    def _record(self, role: str, hosts: Sequence[str]) -> None:
        """Remember, before it is signed, what is issued to whom. Raises PkiError."""
        lines = "".join(f"{role} {plain_host(host)}\n" for host in hosts)
        try:
            new = not self._issued.exists()
            # One short append: lines of two processes do not mix.
            descriptor = os.open(self._issued, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_directory(self._issued.parent)
        except OSError as error:
            raise PkiError(f"{self._issued} cannot be written: {error.strerror}") from error

    def _sign(
        self, key: ec.EllipticCurvePublicKey, role: str, names: x509.GeneralNames, now: float
    ) -> bytes:
        first = next(iter(names))
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, str(first.value)[:NAME_CHARACTERS_MAX]),
            ]
        )
        # etcd answers HTTP by calling itself, and nodes may call each other: all are both.
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(subject, self._certificate.subject, key, now, CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request whose signature was checked."""

    public_key: ec.EllipticCurvePublicKey
    hosts: tuple[str, ...]

    @classmethod
    def parse(cls, pem: bytes) -> Request:
        """Raises PkiError."""
        try:
            request = x509.load_pem_x509_csr(pem)
            key = request.public_key()
            signed = request.is_signature_valid
            extensions = request.extensions
        except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError) as error:
            raise PkiError("the certificate request cannot be understood") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise PkiError("the certificate request must have a key on the curve P-256")
        if not signed:
            raise PkiError("the certificate request is not signed with its key")
        try:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound as error:
            raise PkiError("the certificate request names no host") from error
        hosts = _hosts_of(names)
        _alternative_names(hosts)
        return cls(key, hosts)


def make_request(directory: Path, hosts: Sequence[str]) -> bytes:
    """A request, PEM, for the key kept in `directory`, made there if need be. Raises PkiError."""
    names = _alternative_names(hosts)
    try:
        key = own_key(directory)
    except OSError as error:
        raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3gw")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = request.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def store_certificate(directory: Path, certificate: bytes, bundle: bytes) -> None:
    """Keep what an authority has answered; the CA first, since a certificate says that all is
    there. Raises PkiError."""
    try:
        replace_file(directory / CA_FILE, bundle, 0o644)
        replace_file(directory / CERTIFICATE_FILE, certificate, 0o644)
    except OSError as error:
        raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
    inspect(directory)


def inspect(directory: Path) -> CertificateInfo:
    """What the certificate in a directory says. Raises PkiError when a file is missing, or when no
    certificate of `ca.pem` has signed it."""
    path = directory / CERTIFICATE_FILE
    certificate = _certificates(_read(path), path)[0]
    authorities = _certificates(_read(directory / CA_FILE), directory / CA_FILE)
    if not any(_issued_by(certificate, authority) for authority in authorities):
        raise PkiError(f"{path} is not signed by a certificate in {directory / CA_FILE}")
    roles = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = _hosts_of(names)
    except x509.ExtensionNotFound:
        hosts = ()
    return CertificateInfo(
        role=str(roles[0].value) if len(roles) == 1 else "",
        hosts=hosts,
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def fingerprints(bundle: bytes) -> list[str]:
    """SHA-256 of each certificate in a bundle, in hexadecimal. Raises PkiError."""
    found = _certificates(bundle, Path(CA_FILE))
    return [certificate.fingerprint(hashes.SHA256()).hex() for certificate in found]


def pinned(bundle: bytes, fingerprint: str) -> bytes:
    """The one certificate, PEM, of a bundle that has this fingerprint. Raises PkiError."""
    for certificate in _certificates(bundle, Path(CA_FILE)):
        if certificate.fingerprint(hashes.SHA256()).hex() == fingerprint:
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise PkiError("the certificate authority is not the one that the token names")


def own_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a directory; made there (0600) when it has none. Raises PkiError, OSError."""
    path = directory / KEY_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, _private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
    return _read_key(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path} cannot be read: {error.strerror}") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path} is not a private key without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} is not an elliptic curve key")
    return key


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise PkiError(f"{path} holds no certificate") from error


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, days: int
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def plain_host(host: str) -> str:
    """A host name or an address as it is compared.

    >>> plain_host("GW1.example"), plain_host("0:0::1")
    ('gw1.example', '::1')
    """
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()


def check_hosts(hosts: Sequence[str]) -> None:
    """Raises PkiError unless all are host names or addresses."""
    _alternative_names(hosts)


def _alternative_names(hosts: Sequence[str]) -> x509.GeneralNames:
    """Host names and addresses as alternative names. Raises PkiError for what is neither: a
    wildcard, for example, would let one certificate stand for every node."""
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise PkiError(f"1 to {HOSTS_MAX} hosts are needed")
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            if not _HOST_NAME.fullmatch(host):
                raise PkiError(f"{host!r} is not a host name or an address") from None
            names.append(x509.DNSName(host))
    return x509.GeneralNames(names)


def _hosts_of(names: x509.SubjectAlternativeName) -> tuple[str, ...]:
    hosts = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    if len(hosts) != len(list(names)):
        raise PkiError("only host names and addresses can be certified")
    return tuple(hosts)
