"""Master keys: under which the data keys of SSE-S3 and the built-in named keys are wrapped.

They come from the configuration and are never stored by the store: one key to a line (or between
commas), each 32 bytes in base64 or hexadecimal. The first is the present one; the others are former
ones, still needed for what was wrapped under them. A key is named by its id, which is derived from
it and says nothing about it.
"""

from __future__ import annotations

import binascii
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from s3gw.objects.content import sealing
from s3gw.objects.content.sealing import KEY_BYTES

ID_BYTES = 8
HEX_CHARACTERS = 2 * KEY_BYTES


class BadMasterKeys(Exception):
    """What is configured is no list of master keys; the text is one line and shows no key."""


class MasterKeyMissing(Exception):
    """Something is wrapped under a master key that is not configured. `args[0]` is its id."""

    def __str__(self) -> str:
        return f"the master key with the id {self.args[0].hex()} is not configured"


class MasterKeys:
    """The present master key and the former ones."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        self.present = key_id(keys[0])

    def __repr__(self) -> str:
        return f"MasterKeys({[name.hex() for name in self._keys]})"

    @property
    def ids(self) -> tuple[bytes, ...]:
        return tuple(self._keys)

    @property
    def all(self) -> tuple[bytes, ...]:
        """The keys themselves."""
        return tuple(self._keys.values())

    def wrap(self, data: bytes, context: bytes) -> bytes:
        """`data` under the present key: key id (8), wrapped data."""
        return self.present + sealing.wrap(self._keys[self.present], data, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Raises MasterKeyMissing, NotAuthentic."""
        name = wrapped[:ID_BYTES]
        key = self._keys.get(name)
        if key is None:
            raise MasterKeyMissing(name)
        return sealing.unwrap(key, wrapped[ID_BYTES:], context)

    def is_present(self, wrapped: bytes) -> bool:
        """Whether this is wrapped under the present key."""
        return wrapped[:ID_BYTES] == self.present


def key_id(key: bytes) -> bytes:
    """The id of a master key."""
    return sha256(b"s3gw master key id\x00" + key).digest()[:ID_BYTES]


def parse(text: str) -> MasterKeys:
    """The keys of a text. Raises BadMasterKeys."""
    keys = [_key(word) for word in text.replace(",", "\n").split()]
    if not keys:
        raise BadMasterKeys("there is no key in it")
    return MasterKeys(keys)


def _key(word: str) -> bytes:
    try:
        hexadecimal = len(word) == HEX_CHARACTERS
        key = bytes.fromhex(word) if hexadecimal else b64decode(word, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadMasterKeys(f"a key is {KEY_BYTES} bytes in base64 or hexadecimal")
    return key


def read_file(path: Path) -> MasterKeys:
    """The keys of a file that nobody else may read. Raises BadMasterKeys."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise BadMasterKeys(f"{path} can be read by others: chmod 600 {path}")
        return parse(path.read_text("ascii"))
    except OSError as error:
        raise BadMasterKeys(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadMasterKeys(f"{path} has no keys: it is not text") from error
    except BadMasterKeys as error:
        message = str(error)
        raise BadMasterKeys(message if str(path) in message else f"{path}: {message}") from None


def new_text() -> bytes:
    """A file with a new master key."""
    return b64encode(os.urandom(KEY_BYTES)) + b"\n"
