"""Placement groups made anew from where shards lie.

The node of a slot is the drive that holds most of the group's shards of that index; no drive gets
two slots of a group. A slot without shards keeps its node in the base, else gets one that has no
other slot. A blob that lies elsewhere says so itself: its reference and its record name its nodes
and scheme, as those of a blob that was written around a lost node do, and the repair worker brings
it home. The revision of every group is raised above all that any drive can have seen: by far more
than changes happen, since some drives may be away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from erasure.scheme import Scheme
from placement.cluster_map import Node
from placement.groups import pg_of
from placement.layout import compute
from s3gw.cluster.founding import COMPANION_SUFFIX
from s3gw.metadata import keys
from s3gw.metadata.records import (
    BlobRef,
    LayoutNode,
    LayoutRecord,
    PgRecord,
    ProfileRecord,
    Slot,
    decode,
)
from s3gw.rescue.catalog import Catalog
from s3gw.rescue.coding import Coding, contradicts, named_profile
from s3gw.rescue.decode import checksum
from s3gw.rescue.drives import Blob, RescueError, pg_revisions
from s3gw.rescue.sources import Base

REVISIONS_AHEAD = 2**32


def profiles_of(catalog: Catalog, base: Base | None, pg_count: int) -> dict[str, ProfileRecord]:
    """All profiles: those of the base, then what most shards say, then what names tell. Blobs that
    do not fit are told. Raises RescueError when most blobs of one do not lie by its number of
    groups."""
    found: dict[str, ProfileRecord] = {}
    if base is not None:
        for key, value in base.scan(keys.PROFILES):
            found[key[len(keys.PROFILES) :].decode()] = decode(ProfileRecord, value)
    for name, told in catalog.profiles.items():
        found.setdefault(name, told)
    found |= _told_by_names(catalog, found, pg_count)
    misplaced: Counter[str] = Counter()
    for blob in catalog.all_blobs():
        record = found.get(blob.profile)
        if record is None:
            catalog.doubt(blob, "its profile is in no shard and no metadata found: left alone")
            continue
        misplaced[blob.profile] += 1 if pg_of(blob.blob, record.pg_count) != blob.pg else -1
        if contradicts(blob, record):
            catalog.doubt(blob, "it names another profile than the others: left alone")
    for name, balance in misplaced.items():
        if balance > 0:  # single files in a wrong directory are passed over, with a finding
            raise RescueError(
                f"profile {name} does not have {found[name].pg_count} groups: name their number "
                "with --pg-count"
            )
    for record in list(found.values()):
        if record.companion and record.companion not in found:
            scheme = Scheme.parse(record.scheme).companion()
            found[record.companion] = msgspec.structs.replace(
                record, scheme=str(scheme), companion=""
            )
    _name_owners(found)
    return found


def _told_by_names(
    catalog: Catalog, found: Mapping[str, ProfileRecord], pg_count: int
) -> dict[str, ProfileRecord]:
    """The profiles of which neither metadata nor shards say anything, as the most of their blobs
    have it; without those that stay unknown."""
    told: dict[str, Counter[ProfileRecord]] = {}
    for blob in catalog.all_blobs():
        if blob.profile not in found:
            record = _told_by_name(catalog, blob, pg_count)
            if record is not None:
                told.setdefault(blob.profile, Counter())[record] += 1
    return {name: records.most_common(1)[0][0] for name, records in told.items()}


def _told_by_name(catalog: Catalog, blob: Blob, pg_count: int) -> ProfileRecord | None:
    """A profile of which the shards say nothing, by its name and the size of a blob's blocks."""
    record, coding = named_profile(blob.profile, pg_count), catalog.coding(blob)
    if record is None or coding is None:
        return None
    return msgspec.structs.replace(record, stripe_bytes=coding.stripe_bytes)


def _name_owners(found: dict[str, ProfileRecord]) -> None:
    """A companion whose profile has no shards: its name is what the profile is made from."""
    owned = {record.companion for record in found.values() if record.companion}
    for name, record in list(found.items()):
        if record.companion or name in owned:
            continue
        owner = name.removesuffix(COMPANION_SUFFIX)
        made = named_profile(owner, record.pg_count)
        if owner != name and made is not None and owner not in found:
            found[owner] = msgspec.structs.replace(made, stripe_bytes=record.stripe_bytes)


def layouts_of(
    catalog: Catalog,
    base: Base | None,
    profiles: Iterable[str],
    weights: Mapping[str, int],
    now_ms: int,
) -> list[tuple[int, LayoutRecord]]:
    """Layout epochs to write: those of the base, and one more when there are drives that the last
    of them does not have."""
    known = [] if base is None else list(base.scan(keys.LAYOUTS))
    layouts = [
        (int.from_bytes(key[len(keys.LAYOUTS) :], "big"), decode(LayoutRecord, value))
        for key, value in known
    ]
    nodes = layouts[-1][1].nodes if layouts else ()
    present = {node.node for node in nodes}
    added = tuple(
        LayoutNode(drive.drive_id, drive.drive_id, weights.get(drive.drive_id, 1))
        for drive in catalog.drives
        if drive.drive_id not in present
    )
    if added or not layouts:
        epoch = layouts[-1][0] + 1 if layouts else 1
        names = tuple(sorted({*profiles, *(layouts[-1][1].profiles if layouts else ())}))
        assignments = layouts[-1][1].assignments if layouts else {}
        record = LayoutRecord(now_ms, (*nodes, *added), names, assignments, "recovery")
        layouts.append((epoch, record))
    return layouts


class Groups:
    """The groups of all profiles, and where blobs lie."""

    def __init__(
        self,
        catalog: Catalog,
        base: Base | None,
        profiles: Mapping[str, ProfileRecord],
        nodes: Sequence[LayoutNode],
    ) -> None:
        self.profiles = profiles
        self._catalog = catalog
        self._base = base
        self._nodes = [node for node in nodes if node.state != "out"]
        self._load: Counter[str] = Counter()
        self._held: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
        for (profile, pg, index, drive, scheme), count in catalog.places.items():
            record = profiles.get(profile)
            if record is not None and scheme in ("", record.scheme):
                node = catalog.drives[drive].drive_id
                self._held.setdefault((profile, pg), []).append((-count, index, node))
        self.records: dict[tuple[str, int], PgRecord] = {}
        seen = pg_revisions(catalog.drives)
        for name, record in profiles.items():
            self._make(name, record, seen)

    def _make(self, name: str, profile: ProfileRecord, seen: Mapping[tuple[str, int], int]) -> None:
        scheme = Scheme.parse(profile.scheme)
        planned = compute(
            [Node(node.node, node.zone, node.weight) for node in self._nodes],
            pg_count=profile.pg_count,
            width=scheme.width,
            zone_limit=scheme.tolerance,
        )
        for number in range(profile.pg_count):
            before = self._before(name, number)
            revision = max(before.revision if before else 0, seen.get((name, number), 0))
            slots = self._slots(name, number, scheme.width, before, planned[number])
            self.records[name, number] = PgRecord(revision + REVISIONS_AHEAD, slots)

    def _before(self, name: str, number: int) -> PgRecord | None:
        value = None if self._base is None else self._base.rows.get(keys.pg(name, number))
        return None if value is None else decode(PgRecord, value)

    def _slots(
        self,
        name: str,
        number: int,
        width: int,
        before: PgRecord | None,
        planned: Sequence[str | None],
    ) -> tuple[Slot, ...]:
        chosen: dict[int, str] = {}
        for _, index, node in sorted(self._held.get((name, number), ())):
            if index < width and index not in chosen and node not in chosen.values():
                chosen[index] = node
        for index in range(width):
            if index not in chosen:
                earlier = before.slots[index].node if before and index < len(before.slots) else ""
                chosen[index] = self._free(chosen, earlier, planned[index] or "")
        self._load.update(node for node in chosen.values() if node)
        return tuple(
            self._slot(chosen[index], before.slots[index] if before else None)
            for index in range(width)
        )

    def _free(self, chosen: Mapping[int, str], earlier: str, planned: str) -> str:
        """A node for a slot of which no shard was found."""
        taken = set(chosen.values())
        for node in (earlier, planned):
            if node and node not in taken:
                return node
        free = [node.node for node in self._nodes if node.node not in taken]
        return min(free, key=lambda node: (self._load[node], node), default="")

    def _slot(self, node: str, before: Slot | None) -> Slot:
        """The slot, with those who may still hold its shards as far as the base knew them."""
        if before is None:
            return Slot(node)
        others = [*before.holders_before, before.node]
        moving = node != before.node or before.holders_before
        return Slot(node, tuple(dict.fromkeys(o for o in others if o != node)) if moving else ())

    def is_home(self, blob: Blob) -> bool:
        """Whether a blob lies in the directory of its group, and is coded as its profile is."""
        record = self.profiles.get(blob.profile)
        if record is None or pg_of(blob.blob, record.pg_count) != blob.pg:
            return False
        return not contradicts(blob, record)

    def located(self, ref: BlobRef) -> tuple[BlobRef, bool]:
        """A reference of the base as it must be for its blob to be found, and whether any shard of
        it is on these drives. It stays as it is when it can."""
        number = pg_of(ref.blob, self.profiles[ref.profile].pg_count)
        blob = self._catalog.blob(ref.profile, number, ref.blob)
        if blob is None:
            return ref, False
        held = self._catalog.drive_ids(blob)
        slots = [Slot(node) for node in ref.nodes] or self.records[ref.profile, number].slots
        fits = all(
            {slot.node, *slot.holders_before} & set(held[index])
            for index, slot in enumerate(slots)
            if index in held
        )
        if fits:
            return ref, True
        nodes = [
            slot.node if slot.node in held.get(index, [slot.node]) else held[index][0]
            for index, slot in enumerate(slots)
        ]
        scheme = ref.scheme or self.profiles[ref.profile].scheme
        return msgspec.structs.replace(ref, nodes=tuple(nodes), scheme=scheme), True

    def found(self, blob: Blob, coding: Coding, crc64: int = -1) -> BlobRef:
        """A reference to a blob that no metadata knows. Raises NotReadable when its checksum has to
        be computed and cannot."""
        if crc64 < 0:
            crc64 = coding.crc64 if coding.crc64 >= 0 else checksum(blob, coding)
        held = self._catalog.drive_ids(blob)
        plain = BlobRef(blob.profile, blob.blob, coding.stored, crc64)
        if str(coding.scheme) == self.profiles[blob.profile].scheme:
            return self.located(plain)[0]
        nodes = tuple(held.get(index, [""])[0] for index in range(coding.scheme.width))
        return msgspec.structs.replace(plain, nodes=nodes, scheme=str(coding.scheme))
