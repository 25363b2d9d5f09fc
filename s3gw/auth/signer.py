"""Signing a request as a client does: Signature Version 4 in the Authorization header.

The admin command line signs with it. It uses the canonical form and the signing key of the
verifier, so that the two cannot differ; tests hold it against botocore's signer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from s3gw.auth.canonical import Request, canonical_headers, canonical_paths, canonical_queries
from s3gw.auth.sigv4 import ALGORITHM, S3_SERVICE, TERMINATOR, signing_key


def sign(
    method: str,
    target: bytes,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
    region: str,
    now: float,
    service: bytes = S3_SERVICE,
) -> dict[str, str]:
    """`headers` (host among them, names in lower case) with those that sign the request.

    `target` is path and query as they go over the wire, percent-encoded; `now` is Unix time. All
    headers given are signed, and the hash of the body. `service` is that of the scope.
    """
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {**headers, "x-amz-date": timestamp, "x-amz-content-sha256": digest}
    path, _, query = target.partition(b"?")
    request = Request(
        method, path, query, [(name.encode(), text.encode()) for name, text in signed.items()], now
    )
    names = sorted(name.encode() for name in signed)
    canonical = b"%b\n%b\n%b\n%b\n%b\n%b" % (
        method.encode(),
        canonical_paths(path)[-1],  # as it is sent: it is encoded once
        canonical_queries(request)[-1],
        canonical_headers(request.header_values, names),
        b";".join(names),
        digest.encode(),
    )
    scope = b"/".join((timestamp[:8].encode(), region.encode(), service, TERMINATOR))
    text = b"%b\n%b\n%b\n%b" % (
        ALGORITHM,
        timestamp.encode(),
        scope,
        hashlib.sha256(canonical).hexdigest().encode(),
    )
    signature = hmac.digest(signing_key(secret_key, scope), text, "sha256").hex()
    authorization = (
        f"{ALGORITHM.decode()} Credential={access_key}/{scope.decode()}, "
        f"SignedHeaders={b';'.join(names).decode()}, Signature={signature}"
    )
    return {**signed, "authorization": authorization}
