"""The cluster's own certificate authority. The only importer of `cryptography`.

A directory holds the authority: `ca.key` (0600), `ca.pem`, `crl.pem`, the list of certificates that
it has revoked, and `issued`, with a line `role name serial` for every host name and address in
every certificate. What it signs says in its subject's organizational unit which role its owner has
(`nodes.tls`), and in its alternative names which hosts it answers for; a certificate of etcd says
there, too, that its hosts are etcd (`nodes.tls.role_name`). Keys are on the curve P-256.

`ca.pem` may hold several certificates: the authority's own is the one that `ca.key` belongs to. The
others are former or future authorities, trusted beside it while certificates are being replaced.
So it is with the lists in `crl.pem`, of which the authority's own comes first (etcd reads no
other). A list is valid as long as its authority: it is handed out by the operator, and a cluster
must not stop because he has not done so for a while.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nodes.tls import (
    CA_FILE,
    CERTIFICATE_FILE,
    CRL_FILE,
    ETCD,
    KEY_FILE,
    ROLE_DOMAIN,
    SERVER,
    role_name,
)
from s3gw.files import replace_file, sync_directory, write_new

CA_KEY_FILE = "ca.key"
ISSUED_FILE = "issued"
CA_DAYS = 3650
CERTIFICATE_DAYS = 365
# Clocks of a cluster differ: a certificate is valid a little before it was made.
BACKDATED = timedelta(hours=1)
HOSTS_MAX = 32
NAME_CHARACTERS_MAX = 64
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")


# What `cryptography` raises for what it cannot read.
_UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)


class PkiError(Exception):
    """The authority or a certificate cannot be made or used; one line for the operator."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says. Times in Unix seconds."""

    role: str
    hosts: tuple[str, ...]
    not_before: float
    not_after: float
    revoked: bool = False


class Authority:
    """A certificate authority, opened from its directory."""

    def __init__(
        self,
        directory: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        bundle: bytes,
    ) -> None:
        self._directory = directory
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
            _builder(subject, subject, key.public_key(), now, CA_DAYS, x509.random_serial_number())
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
            made = cls(directory, key, certificate, bundle)
            made.revoke((), now)
        except FileExistsError as error:
            raise PkiError(f"{error.filename} exists: an authority is never overwritten") from error
        except OSError as error:
            raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
        return made

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
        """A certificate for a year, with key, CA and list of the revoked beside it. A key that is
        there stays, so that a renewal replaces one file, whole or not at all, but not when its
        certificate was revoked. Raises PkiError."""
        _alternative_names(hosts, wildcards=role == SERVER)
        if (directory / CA_KEY_FILE).exists():
            raise PkiError(f"{directory} is the directory of an authority: its ca.pem must stay")
        self._refuse_revoked(directory)
        try:
            key = own_key(directory)
            replace_file(directory / CA_FILE, self.bundle, 0o644)
            lists = self.revocations
            if lists:
                replace_file(directory / CRL_FILE, lists, 0o644)
            pem = self._sign(key.public_key(), role, hosts, now)
            replace_file(directory / CERTIFICATE_FILE, pem, 0o644)
        except OSError as error:
            raise PkiError(f"{directory} cannot be written: {error.strerror}") from error

    def sign_request(self, request: Request, role: str, now: float) -> bytes:
        """A certificate, PEM, for the key and the hosts of a request; what else the request asks
        for does not count."""
        return self._sign(request.public_key, role, request.hosts, now)

    @property
    def revocations(self) -> bytes:
        """The lists of all authorities that are trusted, PEM; empty where there are none. Raises
        PkiError."""
        path = self._directory / CRL_FILE
        return _read(path) if path.exists() else b""

    def revoke(self, serials: Collection[int], now: float) -> None:
        """Add these certificates to the list of the revoked, for ever. Safe between processes.
        Raises PkiError."""
        try:
            lock = os.open(self._directory, os.O_RDONLY)
        except OSError as error:
            raise PkiError(f"{self._directory} cannot be read: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._revoke(serials, now)
        finally:
            os.close(lock)

    def _revoke(self, serials: Collection[int], now: float) -> None:
        path = self._directory / CRL_FILE
        lists = _lists(self.revocations, path) if path.exists() else []
        own = [each for each in lists if each.is_signature_valid(self._key.public_key())]
        revoked = {each.serial_number: each.revocation_date_utc for old in own for each in old}
        moment = datetime.fromtimestamp(now, UTC)
        revoked |= {serial: moment for serial in serials if serial not in revoked}
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        # Of two lists OpenSSL takes the one with the later time, which has whole seconds.
        later = [min(old.last_update_utc + timedelta(seconds=1), moment) for old in own]
        numbers = [
            old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
            for old in own
        ]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(max([moment - BACKDATED, *later]))
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(authority, critical=False)
            .add_extension(x509.CRLNumber(max([int(now * 1000), *numbers])), critical=False)
        )
        for serial, since in sorted(revoked.items()):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(since)
                .build()
            )
        made = [builder.sign(self._key, hashes.SHA256()), *(e for e in lists if e not in own)]
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in made)
        try:
            replace_file(path, pem, 0o644)
        except OSError as error:
            raise PkiError(f"{path} cannot be written: {error.strerror}") from error

    def serials_of(self, host: str, role: str = "") -> dict[int, str]:
        """Serial number and role of every certificate for a host, also of those that have ended.
        Raises PkiError."""
        found = [
            (serial, owner)
            for owner, name, serial in self._read_issued()
            if name == plain_host(host) and role in ("", owner)
        ]
        return {int(serial, 16): owner for serial, owner in found if serial}

    def require_own(self, path: Path) -> int:
        """The serial number of a certificate of this authority. Raises PkiError."""
        certificate = _certificates(_read(path), path)[0]
        if not _issued_by(certificate, self._certificate):
            raise PkiError(f"{path} was not issued by this authority")
        return certificate.serial_number

    def _refuse_revoked(self, directory: Path) -> None:
        path = directory / CERTIFICATE_FILE
        lists = self.revocations
        if not lists or not path.exists():
            return
        serial = _certificates(_read(path), path)[0].serial_number
        if serial in _serials(_lists(lists, self._directory / CRL_FILE)):
            raise PkiError(
                f"the certificate in {directory} has been revoked: remove it and {KEY_FILE}, "
                "whose key is not certified again"
            )

    def issued_to_others(self, role: str, hosts: Sequence[str]) -> list[str]:
        """Which of these hosts have been certified in another role. Raises PkiError."""
        others = {name for owner, name, _ in self._read_issued() if owner != role}
        return [host for host in hosts if plain_host(host) in others]

    def _read_issued(self) -> list[tuple[str, str, str]]:
        """Role, name and serial number (hexadecimal) of what was signed. Raises PkiError."""
        try:
            lines = self._issued.read_text().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeError) as error:
            raise PkiError(f"{self._issued} cannot be read: {error}") from error
        words = ([*line.split(" "), "", "", ""] for line in lines)
        return [(role, name, serial) for role, name, serial, *_ in words]

    def _record(self, role: str, hosts: Sequence[str], serial: int) -> None:
        """Remember, before it is signed, what is issued to whom. Raises PkiError."""
        lines = "".join(f"{role} {plain_host(host)} {serial:x}\n" for host in hosts)
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
        self, key: ec.EllipticCurvePublicKey, role: str, hosts: Sequence[str], now: float
    ) -> bytes:
        names = list(_alternative_names(hosts, wildcards=role == SERVER))
        first = names[0]
        if role == ETCD:
            names += [x509.DNSName(role_name(role, host)) for host in hosts]
        serial = x509.random_serial_number()
        self._record(role, hosts, serial)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, str(first.value)[:NAME_CHARACTERS_MAX]),
            ]
        )
        # etcd answers HTTP by calling itself, and nodes may call each other: all are both, but for
        # what the world sees. It must open nothing, and etcd lets in every client of its authority.
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
        if role != SERVER:
            purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(subject, self._certificate.subject, key, now, CERTIFICATE_DAYS, serial)
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
        except _UNREADABLE as error:
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


def store_certificate(
    directory: Path, certificate: bytes, bundle: bytes, revocations: bytes = b""
) -> None:
    """Keep what an authority has answered; the CA first, since a certificate says that all is
    there. Raises PkiError."""
    try:
        replace_file(directory / CA_FILE, bundle, 0o644)
        if revocations:
            replace_file(directory / CRL_FILE, revocations, 0o644)
        replace_file(directory / CERTIFICATE_FILE, certificate, 0o644)
    except OSError as error:
        raise PkiError(f"{directory} cannot be written: {error.strerror}") from error
    inspect(directory)


def inspect(directory: Path) -> CertificateInfo:
    """What the certificate in a directory says. Raises PkiError when a file is missing, when no
    certificate of `ca.pem` has signed it or a list of the revoked, or when one has no list and
    others have: its peers would all be refused."""
    path = directory / CERTIFICATE_FILE
    certificate = _certificates(_read(path), path)[0]
    authorities = _certificates(_read(directory / CA_FILE), directory / CA_FILE)
    if not any(_issued_by(certificate, authority) for authority in authorities):
        raise PkiError(f"{path} is not signed by a certificate in {directory / CA_FILE}")
    lists = _lists_in(directory)
    for revocations in lists:
        if not any(_signed_by(revocations, authority) for authority in authorities):
            raise PkiError(
                f"{directory / CRL_FILE} is not signed by a certificate in {directory / CA_FILE}"
            )
    for authority in authorities if lists else ():
        if not any(_signed_by(revocations, authority) for revocations in lists):
            raise PkiError(
                f"{directory / CRL_FILE} has no list of every authority in {CA_FILE}: append it"
            )
    return _info(certificate, certificate.serial_number in revoked(directory))


def inspect_file(path: Path) -> CertificateInfo:
    """What the first certificate of a file says, of whatever authority. Raises PkiError."""
    return _info(_certificates(_read(path), path)[0])


def revoked(directory: Path) -> frozenset[int]:
    """The serial numbers of the certificates that `crl.pem` names; none when there is no such
    file. Raises PkiError."""
    return _serials(_lists_in(directory))


def _info(certificate: x509.Certificate, revoked: bool = False) -> CertificateInfo:
    roles = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        names = x509.SubjectAlternativeName([])
    return CertificateInfo(
        role=str(roles[0].value) if len(roles) == 1 else "",
        hosts=tuple(host for host in _hosts_in(names) if not _names_role(host)),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        revoked=revoked,
    )


def _lists_in(directory: Path) -> list[x509.CertificateRevocationList]:
    path = directory / CRL_FILE
    return _lists(_read(path), path) if path.exists() else []


def _lists(pem: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    """The lists in a bundle. Raises PkiError."""
    try:
        found = [x509.load_pem_x509_crl(each) for each in _PEM_CRL.findall(pem)]
    except ValueError as error:
        raise PkiError(f"{path} holds no list of revoked certificates") from error
    if not found:
        raise PkiError(f"{path} holds no list of revoked certificates")
    return found


def _serials(lists: Sequence[x509.CertificateRevocationList]) -> frozenset[int]:
    return frozenset(each.serial_number for revocations in lists for each in revocations)


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
    except _UNREADABLE as error:
        raise PkiError(f"{path} holds no certificate") from error


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _signed_by(revocations: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if revocations.issuer != authority.subject or not isinstance(
        key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    ):
        return False
    return revocations.is_signature_valid(key)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: float,
    days: int,
    serial: int,
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
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


def _names_role(host: str) -> bool:
    return plain_host(host).endswith(f".{ROLE_DOMAIN}")


def _alternative_names(hosts: Sequence[str], *, wildcards: bool = False) -> x509.GeneralNames:
    """Host names and addresses as alternative names. Raises PkiError for what is neither: a
    wildcard, for example, would let one certificate stand for every node (for the S3 port, whose
    buckets are host names, it may be the first label). Names that state a role are nobody's."""
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise PkiError(f"1 to {HOSTS_MAX} hosts are needed")
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            name = host.removeprefix("*.") if wildcards else host
            if not _HOST_NAME.fullmatch(name) or _names_role(name):
                raise PkiError(f"{host!r} is not a host name or an address") from None
            names.append(x509.DNSName(host))
    return x509.GeneralNames(names)


def _hosts_of(names: x509.SubjectAlternativeName) -> tuple[str, ...]:
    hosts = _hosts_in(names)
    if len(hosts) != len(list(names)):
        raise PkiError("only host names and addresses can be certified")
    return hosts


def _hosts_in(names: x509.SubjectAlternativeName) -> tuple[str, ...]:
    known = x509.DNSName | x509.IPAddress
    return tuple(str(name.value) for name in names if isinstance(name, known))
