"""Forms as a browser sends them, made by hand, and signed in both ways."""

import base64
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from compose.s3_http import Reply, S3Http, Signer

Fields = Iterable[tuple[str, str | bytes]]


def encode(fields: Fields, *files: bytes, filename: str = "a.txt") -> tuple[str, bytes]:
    """Content-Type and body; the files come last."""
    boundary = f"----Form{secrets.token_hex(8)}"
    body = b""
    for name, value in fields:
        raw = value.encode() if isinstance(value, str) else value
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        body += raw + b"\r\n"
    for data in files:
        disposition = f'form-data; name="file"; filename="{filename}"'
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n".encode()
        body += b"Content-Type: text/plain\r\n\r\n" + data + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


@dataclass(frozen=True)
class Poster:
    """Sends forms to one bucket."""

    http: S3Http
    bucket: str

    def send(
        self,
        fields: Fields | dict[str, str],
        *files: bytes,
        filename: str = "a.txt",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """A form as it is; one file of four bytes unless others are given."""
        pairs = fields.items() if isinstance(fields, dict) else fields
        content_type, body = encode(pairs, *(files or (b"data",)), filename=filename)
        named = {"content-type": content_type, **(headers or {})}
        return self.http.send("POST", f"/{self.bucket}", headers=named, body=body)

    def post(self, fields: dict[str, str], *files: bytes, **options: Any) -> Reply:
        """A form whose policy fits its fields."""
        exact = [{name: value} for name, value in fields.items()]
        return self.send(self.signed(fields, exact), *files, **options)

    def signed(
        self,
        fields: dict[str, str],
        conditions: list[Any],
        *,
        version: int = 4,
        signer: Signer | None = None,
        lasts: timedelta = timedelta(minutes=5),
        token: str = "",
    ) -> dict[str, str]:
        """The fields with a policy of these conditions, and of the bucket, in front of them."""
        by = signer or self.http.signer
        now = datetime.now(UTC)
        proof: dict[str, str] = {}
        if version == 4:
            timestamp = now.strftime("%Y%m%dT%H%M%SZ")
            scope = f"{timestamp[:8]}/{by.region}/s3/aws4_request"
            proof = {
                "x-amz-algorithm": "AWS4-HMAC-SHA256",
                "x-amz-credential": f"{by.access_key}/{scope}",
                "x-amz-date": timestamp,
            }
        if token:
            proof["x-amz-security-token"] = token
        covered = [{"bucket": self.bucket}, *conditions, *({n: v} for n, v in proof.items())]
        expiration = (now + lasts).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        document = {"expiration": expiration, "conditions": covered}
        policy = base64.b64encode(json.dumps(document).encode())
        if version == 4:
            proof["x-amz-signature"] = sign_4(by.secret_key, scope, policy)
        else:
            digest = hmac.digest(by.secret_key.encode(), policy, "sha1")
            proof |= {
                "AWSAccessKeyId": by.access_key,
                "signature": base64.b64encode(digest).decode(),
            }
        return {**fields, **proof, "policy": policy.decode()}


def sign_4(secret_key: str, scope: str, policy: bytes) -> str:
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, policy, "sha256").hex()
