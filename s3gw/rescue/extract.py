"""Objects out of shard files, without metadata.

What a key is called may be hostile: names of files are made so that they stay below the target,
whatever the key. A body is written beside its final name and gets it only when every check passed:
the checksum of each block, the CRC64NVME of each blob, the size, and the MD5 that the ETag is of.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nodes.protocol import Buffer
from s3gw.objects.content.framing import Framing
from s3gw.objects.footer import Footer
from s3gw.rescue.catalog import Version
from s3gw.rescue.decode import NotReadable, read_blob
from s3gw.rescue.drives import RescueError
from s3gw.rescue.unsealing import NO_KEYS, RescueKeys, content, part_framing

NAME_BYTES_MAX = 200
PATH_BYTES_MAX = 2000
# No name of a bucket is made to begin like this.
LISTING = "%extracted.jsonl"
_PLAIN = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$&'()+,-.;=@[]^_`{}~"
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """An object as written."""

    path: str
    size: int


def safe_name(text: str) -> str:
    """A file name for a bucket or one piece of a key between slashes: what is not plainly harmless
    is percent-encoded, byte by byte, and what is too long ends in a hash of the whole.

    >>> safe_name("a b.txt"), safe_name(".."), safe_name(""), safe_name("50%\\x00")
    ('a b.txt', '%2E%2E', '%', '50%25%00')
    """
    data = text.encode()
    if not data:
        return "%"
    if not data.strip(b"."):
        return "%2E" * len(data)
    name = "".join(c if c in _PLAIN or ord(c) >= 0xA0 else _encoded(c) for c in text)
    if len(name.encode()) > NAME_BYTES_MAX:
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        name = f"{name.encode()[: NAME_BYTES_MAX // 2].decode(errors='ignore')}%{digest}"
    return name


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def safe_path(bucket: str, key: str) -> str:
    """The path below the target for a key.

    >>> safe_path("b", "../../etc/passwd"), safe_path("b", "/a//b/")
    ('b/%2E%2E/%2E%2E/etc/passwd', 'b/%/a/%/b/%')
    """
    path = "/".join([safe_name(bucket), *(safe_name(piece) for piece in key.split("/"))])
    return path if len(path.encode()) <= PATH_BYTES_MAX else hashed_path(bucket, key)


def hashed_path(bucket: str, key: str) -> str:
    """A path that collides with no other: for keys that are too long, or that are a file where
    others need a directory ("a" beside "a/b")."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{safe_name(bucket)}/%keys/{digest}"


def body(version: Version, keys: RescueKeys = NO_KEYS) -> Iterator[Buffer]:
    """The content of a version, checked. Raises NotReadable."""
    footer = version.footer
    framing = keys.framing(footer)
    size = 0
    manifest = footer.kind == "manifest"
    for buffer in (_manifest_body if manifest else _blob_body)(version, framing):
        size += len(buffer)
        yield buffer
    if size != footer.size:
        raise NotReadable(f"{size} of {footer.size} bytes were found")


def _blob_body(version: Version, framing: Framing) -> Iterator[Buffer]:
    if version.coding is None:
        raise NotReadable("the scheme of the blob is not known")
    md5 = hashlib.md5(usedforsecurity=False)
    stored = read_blob(version.blob, version.coding)
    for buffer in content(framing, version.footer.size, version.coding.stored, stored):
        md5.update(buffer)
        yield buffer
    if framing.etag(md5.hexdigest()) != version.footer.etag:
        raise NotReadable("the bytes are not those of the ETag")


def _manifest_body(version: Version, framing: Framing) -> Iterator[Buffer]:
    for part in version.parts:
        if part.blob is None:
            raise NotReadable(f"part {part.record.number} is not on these drives")
        if part.coding is None:
            raise NotReadable(f"the scheme of part {part.record.number} is not known")
        md5 = hashlib.md5(usedforsecurity=False)
        own = part_framing(framing, part.record.content)
        stored = read_blob(part.blob, part.coding)
        for buffer in content(own, part.record.size, part.record.blob.size, stored):
            md5.update(buffer)
            yield buffer
        if own.etag(md5.hexdigest()) != part.record.etag:
            raise NotReadable(f"the bytes of part {part.record.number} are not those of its ETag")


def extract_to(version: Version, target: Path, keys: RescueKeys = NO_KEYS) -> Extracted:
    """Write a version to a file that must not exist. Raises NotReadable, RescueError."""
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        size = 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                for buffer in body(version, keys):
                    file.write(buffer)
                    size += len(buffer)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target, follow_symlinks=False)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise RescueError(f"{target} exists already") from None
    except OSError as error:
        raise RescueError(f"{target} cannot be written: {error.strerror}") from error
    return Extracted(str(target), size)


class Folder:
    """A directory that extracted objects go to; it must be new or empty, so that nothing in it can
    lead elsewhere."""

    def __init__(self, path: Path, keys: RescueKeys = NO_KEYS) -> None:
        self.path = path
        self._keys = keys
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RescueError(f"{path} is not empty")
            self._listing = (path / LISTING).open("xb")
        except OSError as error:
            raise RescueError(f"{path} cannot be written: {error.strerror}") from error

    def add(self, bucket: str, key: str, version: Version) -> Extracted:
        """Extract one version. Raises NotReadable, RescueError."""
        relative = safe_path(bucket, key)
        try:
            try:
                (self.path / relative).parent.mkdir(parents=True, exist_ok=True)
                clash = (self.path / relative).exists()
            except (FileExistsError, NotADirectoryError):
                clash = True
            if clash:
                relative = hashed_path(bucket, key)
                (self.path / relative).parent.mkdir(parents=True, exist_ok=True)
            done = extract_to(version, self.path / relative, self._keys)
            self._listing.write(msgspec.json.encode(_line(bucket, key, relative, version.footer)))
            self._listing.write(b"\n")
            self._listing.flush()
        except OSError as error:
            raise RescueError(f"{self.path} cannot be written: {error.strerror}") from error
        return done

    def close(self) -> None:
        self._listing.close()


def _line(bucket: str, key: str, path: str, footer: Footer) -> dict[str, object]:
    """What the listing says of a file: where it is, and what S3 would have said of the object."""
    return {
        "bucket": bucket,
        "key": key,
        "path": path,
        "size": footer.size,
        "etag": footer.etag,
        "modified_ms": footer.modified_ms,
        "headers": footer.headers,
        "metadata": footer.user,
        "tags": footer.tags,
    }
