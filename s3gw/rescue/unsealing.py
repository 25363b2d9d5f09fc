"""Content out of stored bytes, with what keys an operator gives.

What a shard's footer says of an encrypted object is its data key as it was wrapped when the object
was written, and under a built-in named key a copy of that one, wrapped under the master key. So a
former master key is needed for what is older than a rotation, and a customer's key for what was
sealed with it. What is under a key of a key management service can be read through a store whose
metadata was rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nodes.protocol import Buffer
from s3gw.metadata.records import Content
from s3gw.objects.content.framing import PLAIN, ContentDamaged, Framing, decoded
from s3gw.objects.content.sealing import NotAuthentic
from s3gw.objects.encrypted import hides_md5
from s3gw.objects.footer import Footer
from s3gw.objects.keyring.master import MasterKeyMissing, MasterKeys
from s3gw.objects.keyring.ring import SSE_C, opened_by
from s3gw.rescue.decode import NotReadable


@dataclass(frozen=True, slots=True)
class RescueKeys:
    """The keys at hand: master keys, and the keys of customers."""

    master: MasterKeys | None = None
    customer: tuple[bytes, ...] = field(default=(), repr=False)

    def framing(self, footer: Footer) -> Framing:
        """The framing of an object; of one of parts, that which theirs follow from. Raises
        NotReadable."""
        content_id = footer.content_id or footer.upload
        data_key = b"" if footer.encryption is None else self._data_key(footer, content_id)
        if not data_key and (footer.kind == "manifest" or not footer.compression):
            return PLAIN
        return Framing(content_id, data_key, footer.compression, hides_md5(footer.encryption))

    def _data_key(self, footer: Footer, content_id: bytes) -> bytes:
        encryption = footer.encryption
        assert encryption is not None
        for customer_key in (*self.customer, b""):
            try:
                found = opened_by(
                    encryption, content_id, self.master, customer_key, footer.named_key
                )
            except NotAuthentic:
                continue
            except MasterKeyMissing as error:
                raise NotReadable(f"it is encrypted, and {error}") from error
            if found is not None:
                return found
        if encryption.kind == SSE_C:
            raise NotReadable(
                "it is encrypted with a customer's key: give it (--customer-key-file)"
            )
        if encryption.key_name and footer.named_key is None:
            raise NotReadable(
                f"it is encrypted with the named key {encryption.key_name}, of which its shards "
                "have no copy: rebuild the metadata, and read it through the store"
            )
        if self.master is not None:
            raise NotReadable("it is encrypted, and its data key is not what was wrapped")
        raise NotReadable("it is encrypted: give the master key (--master-key-file)")


NO_KEYS = RescueKeys()


def part_framing(framing: Framing, content: Content | None) -> Framing:
    """The framing of a part of an object. Raises NotReadable."""
    try:
        return framing.of_part(content)
    except NotAuthentic as error:
        raise NotReadable(str(error)) from error


def content(framing: Framing, size: int, stored: int, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """A content of `size` bytes out of its stored bytes. Raises NotReadable."""
    if framing is PLAIN:
        yield from pieces
        return
    try:
        yield from decoded(framing, size, stored, pieces)
    except ContentDamaged as error:
        raise NotReadable(str(error)) from error
