"""Customer keys and bodies for tests of encryption."""

from __future__ import annotations

import hashlib
import random
from base64 import b64encode
from typing import Any

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MIB = 1024 * 1024


def sse_c(key: bytes = KEY, prefix: str = "") -> dict[str, Any]:
    """boto3's parameters for a customer's key; boto3 makes base64 and MD5 of it."""
    return {f"{prefix}SSECustomerAlgorithm": "AES256", f"{prefix}SSECustomerKey": key}


def key_headers(key: bytes = KEY, prefix: str = "x-amz-server-side-encryption") -> dict[str, str]:
    return {
        f"{prefix}-customer-algorithm": "AES256",
        f"{prefix}-customer-key": b64encode(key).decode(),
        f"{prefix}-customer-key-md5": b64encode(hashlib.md5(key).digest()).decode(),
    }


def body_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def md5_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def rule(algorithm: str = "AES256", **more: str) -> dict[str, Any]:
    """A bucket's default encryption."""
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm, **more}}]}
