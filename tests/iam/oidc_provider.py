"""A small OpenID Connect provider: its own keys, discovery and JWKS over HTTPS, tokens at will."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT = "app-1"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def encoded(data: bytes) -> str:
    """base64url without padding, as JOSE has it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def integer(value: int, length: int | None = None) -> str:
    """A number of a JWK."""
    return encoded(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


@dataclass
class Key:
    """A signing key and how it is published."""

    private: PrivateKey
    kid: str
    algorithm: str

    @classmethod
    def rsa(cls, kid: str, bits: int = 2048) -> "Key":
        return cls(rsa.generate_private_key(65537, bits), kid, "RS256")

    @classmethod
    def ec(cls, kid: str) -> "Key":
        return cls(ec.generate_private_key(ec.SECP256R1()), kid, "ES256")

    def jwk(self) -> dict[str, str]:
        public = self.private.public_key()
        named = {"kid": self.kid, "use": "sig", "alg": self.algorithm}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {**named, "kty": "RSA", "n": integer(numbers.n), "e": integer(numbers.e)}
        point = public.public_numbers()
        at = {"x": integer(point.x, 32), "y": integer(point.y, 32)}
        return {**named, "kty": "EC", "crv": "P-256", **at}

    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@dataclass
class Issuer:
    """What a provider says: its documents, and tokens that it (or a forger) makes."""

    url: str
    keys: list[Key] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)

    def document(self, path: str) -> bytes | None:
        """The answer to a GET, None for 404."""
        self.asked.append(path)
        if self.broken:
            return None
        if path == "/.well-known/openid-configuration":
            found = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.overrides}
            return json.dumps(found).encode()
        if path == "/keys":
            return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()
        return None

    def claims(self, *, now: float | None = None, **changed: Any) -> dict[str, Any]:
        """Good claims, changed; None takes one away."""
        moment = int(time.time() if now is None else now)
        found = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "user-1",
            "iat": moment,
            "exp": moment + 3600,
            **changed,
        }
        return {name: value for name, value in found.items() if value is not None}

    def token(
        self,
        claims: dict[str, Any] | None = None,
        *,
        key: Key | None = None,
        headers: dict[str, Any] | None = None,
    ) -> str:
        """A token signed by the newest key, or by this one."""
        key = key or self.keys[-1]
        return jwt.PyJWS().encode(
            json.dumps(claims if claims is not None else self.claims()).encode(),
            key.private,  # type: ignore[arg-type]
            algorithm=key.algorithm,
            headers={"kid": key.kid, **(headers or {})},
        )


class Provider:
    """An issuer behind TLS, with a certificate of its own authority."""

    def __init__(self, directory: Path) -> None:
        self.ca = directory / "oidc.pem"
        certificate_key = directory / "oidc-key.pem"
        _make_certificate(self.ca, certificate_key)
        provider = self
        self.odd: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path in provider.odd:
                    provider.odd[self.path](self)
                    return
                body = provider.issuer.document(self.path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, certificate_key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.issuer = Issuer(f"https://127.0.0.1:{self._server.server_port}", [Key.rsa("k1")])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _make_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
