"""Version ids: a version's sequence, opaque to clients.

    id = base32hex, lower case: sequence(8, big-endian) check(2)

Sixteen characters that need no escaping anywhere and order as the versions were made. The check is
of the sequence alone: it tells what cannot be an id (400) from the id of a version that is gone
(404). It is no secret and no proof: whoever may read a version is decided by authorization, and an
id stays valid when a store is recovered with new secrets. The null version's id is `null`.
"""

from __future__ import annotations

import binascii
from base64 import b32hexdecode, b32hexencode
from hashlib import blake2b

from s3gw.errors import InvalidArgument

NULL = "null"
NULL_VERSION = 0
"""Stands for the null version where a sequence is expected: no version has this sequence."""

CHECK_BYTES = 2
ID_CHARACTERS = 16


def encode_version_id(sequence: int) -> str:
    """The id of the version with this sequence.

    >>> encode_version_id(1), encode_version_id(2)
    ('0000000000002q24', '0000000000004tfo')
    """
    raw = sequence.to_bytes(8, "big")
    return b32hexencode(raw + _check(raw)).decode().lower()


def decode_version_id(text: str, argument: str = "versionId") -> int:
    """The sequence that an id names, NULL_VERSION for `null`. `argument` is the parameter it came
    in, for the error. Raises InvalidArgument."""
    if text == NULL:
        return NULL_VERSION
    if not text:
        raise InvalidArgument(
            "Version id cannot be the empty string", ArgumentName=argument, ArgumentValue=text
        )
    try:
        raw = b32hexdecode(text.upper().encode("ascii")) if len(text) == ID_CHARACTERS else b""
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    body, check = raw[:8], raw[8:]
    sequence = int.from_bytes(body, "big")
    # A version has one spelling of its id.
    if not raw or check != _check(body) or not sequence or encode_version_id(sequence) != text:
        raise InvalidArgument(
            "Invalid version id specified", ArgumentName=argument, ArgumentValue=text
        )
    return sequence


def sequence_named(text: str | None) -> int | None:
    """As `decode_version_id`, but None for what is none."""
    try:
        return None if text is None else decode_version_id(text)
    except InvalidArgument:
        return None


def _check(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=CHECK_BYTES, person=b"s3gw version id").digest()
