"""Secrets at rest: AES-256-GCM under keys derived from the store's secret.

All gateways know the store's secret, the drives do not (snapshots of the metadata leave it out), so
that nobody signs requests with what a drive or a snapshot holds. Each purpose has a key of its own
(HKDF-SHA256, RFC 5869). `context` is authenticated with the sealed bytes: what was sealed for one
context opens in no other.

A sealed value is `nonce (12) · ciphertext · tag (16)`; the nonce is random.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12


class Unsealable(Exception):
    """The bytes were not sealed with this key and this context."""


def derived_key(secret: bytes, purpose: bytes) -> bytes:
    """The key of 32 bytes that the store has for a purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"s3gw " + purpose).derive(secret)


class Seal:
    """Seals and opens with one key."""

    __slots__ = ("_cipher",)

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        self._cipher = AESGCM(derived_key(secret, purpose))

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """The sealed form of `plain`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed. Raises Unsealable."""
        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, body, context)
        except (InvalidTag, ValueError) as error:
            raise Unsealable("the value was sealed by another store, or is damaged") from error
