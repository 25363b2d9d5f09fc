"""Named keys made anew from the copies that shards have of them.

The base of a recovery may be older than a key, or than a version of it, which objects found in
shards alone are sealed with. Each footer of such an object has a copy of that version, wrapped
under a master key; nothing is opened here. A key that the base knows gets the versions that it
lacks and stays what it is otherwise. One that it does not know is made with what was found:
enabled, as no shard says that it was disabled or deleted meanwhile. Of several that had the same
name the one made last is taken; what is under the others is read from the drives
(`s3gw rescue extract`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from s3gw.kv.interface import KV, At, Put
from s3gw.metadata import keys
from s3gw.metadata.key_records import KeyCopy, NamedKey
from s3gw.metadata.records import decode, encode
from s3gw.objects.footer import Footer
from s3gw.objects.keyring import named
from s3gw.objects.keyring.master import ID_BYTES
from s3gw.objects.keyring.named import ENABLED, NAME, VERSIONS_MAX
from s3gw.objects.keyring.ring import named_by

DESCRIPTION = "made anew from shards"
REMADE = (
    "the key was made anew from shards, enabled: whether it was disabled or deleted since is not "
    "known"
)
FORMER = "another key had this name before, or has it now: what is under it can only be extracted"

Versions = dict[int, bytes]
Note = Callable[[str, str, str, str], None]


class FoundKeys:
    """The copies in footers of what a recovery takes from shards."""

    def __init__(self) -> None:
        self._found: dict[str, dict[bytes, tuple[int, Versions]]] = {}

    def add(self, footer: Footer) -> None:
        """Take the copy that a footer has, if it has one that can be true."""
        copy, encryption = footer.named_key, footer.encryption
        if copy is None or encryption is None:
            return
        name = named_by(encryption.key_name)
        if NAME.fullmatch(name) and _is_possible(copy):
            keys_of_name = self._found.setdefault(name, {})
            _, versions = keys_of_name.setdefault(copy.key_id, (copy.created_ms, {}))
            versions[copy.version] = copy.wrapped

    async def write(self, kv: KV, note: Note) -> set[bytes]:
        """Write the records of keys; the ids of the master keys that what is new in them is wrapped
        under. `note` is told as `Rebuild.note` is. Raises EngineError."""
        masters: set[bytes] = set()
        for name, found in sorted(self._found.items()):
            key = keys.named_key(name)
            (item,) = (await kv.get_many([key])).items
            record = decode(NamedKey, item.value) if item is not None else None
            if record is None:
                key_id = max(found, key=lambda each: (found[each][0], each))
                record = NamedKey(
                    found[key_id][0], ENABLED, (), description=DESCRIPTION, key_id=key_id
                )
                note("uncertain", "", f"key {name}", REMADE)
            if set(found) - {record.key_id}:
                note("uncertain", "", f"key {name}", FORMER)
            _, versions = found.get(record.key_id, (0, {}))
            completed = _completed(record, versions)
            if completed == record:
                continue
            await kv.commit([At(key, item.revision if item else 0)], [Put(key, encode(completed))])
            masters |= {wrapped[:ID_BYTES] for wrapped in completed.versions if wrapped}
        return masters


def _is_possible(copy: KeyCopy) -> bool:
    return (
        len(copy.key_id) == named.ID_BYTES
        and 1 <= copy.version <= VERSIONS_MAX
        and len(copy.wrapped) > ID_BYTES
        and 0 <= copy.created_ms < 2**47
    )


def _completed(record: NamedKey, versions: Versions) -> NamedKey:
    """With the versions that the record lacks; those that nobody has stay empty."""
    count = max(len(record.versions), *versions) if versions else len(record.versions)
    padded = record.versions + (b"",) * (count - len(record.versions))
    merged = tuple(wrapped or versions.get(number, b"") for number, wrapped in enumerate(padded, 1))
    return msgspec.structs.replace(record, versions=merged)
