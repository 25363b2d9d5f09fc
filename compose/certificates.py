"""Certificates for a store on this machine, made with the commands an operator would type."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

HOST = "127.0.0.1"
ROLES = ("etcd", "node", "gateway", "client")
_REPOSITORY = Path(__file__).resolve().parent.parent


class CertificateError(RuntimeError):
    """`s3gw ca` failed; the message is what it said."""


class Certificates:
    """An authority in `directory`/ca and a certificate for this machine in each role, made once:
    all processes of one role share one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca"
        if not self.ca.exists():
            self._command("init", "--dir", str(self.ca))
        for role in ROLES:
            if not self.of(role).exists():
                self.issue(role, self.of(role))

    def of(self, role: str) -> Path:
        """The directory with ca.pem, cert.pem and key.pem of a role."""
        return self.directory / role

    def issue(self, role: str, out: Path, host: str = HOST) -> None:
        """Make a certificate for this machine in `out`, or renew it."""
        arguments = ("--dir", str(self.ca), "--role", role, "--host", host, "--out", str(out))
        self._command("issue", *arguments)

    def revoke(self, files: Path) -> None:
        """Revoke the certificate in a directory, and tell all roles."""
        self._command("revoke", "--dir", str(self.ca), "--cert", str(files / "cert.pem"))
        for role in ROLES:
            path = self.of(role) / "crl.pem"
            temporary = path.with_suffix(".new")
            temporary.write_bytes((self.ca / "crl.pem").read_bytes())
            temporary.rename(path)

    def context(self, role: str) -> ssl.SSLContext:
        """What a client with the certificate of a role connects with."""
        files = self.of(role)
        context = ssl.create_default_context(cafile=str(files / "ca.pem"))
        context.load_cert_chain(files / "cert.pem", files / "key.pem")
        return context

    def token(self) -> str:
        """A token with which one node can join."""
        return self._command("token", "--dir", str(self.ca), "--host", HOST).strip()

    def etcd_flags(self) -> list[str]:
        """etcd's flags for mutual TLS with clients and peers."""
        files = (str(self.of("etcd") / f"{name}.pem") for name in _FILES)
        ca, certificate, key, revoked = files
        return [
            *("--client-cert-auth", "--trusted-ca-file", ca),
            *("--cert-file", certificate, "--key-file", key),
            *("--peer-client-cert-auth", "--peer-trusted-ca-file", ca),
            *("--peer-cert-file", certificate, "--peer-key-file", key),
            *("--client-crl-file", revoked, "--peer-crl-file", revoked),
        ]

    @staticmethod
    def _command(*arguments: str) -> str:
        environment = {name: text for name, text in os.environ.items() if "S3GW_" not in name}
        done = subprocess.run(
            [sys.executable, "-m", "s3gw", "ca", *arguments],
            env=environment,
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CertificateError(f"s3gw ca {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


_FILES = ("ca", "cert", "key", "crl")
