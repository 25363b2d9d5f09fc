"""What of the repair queue waits for nodes, as far as this process has seen it.

An entry that was tried, and can go on only when nodes are back that are down, costs nothing until
they are: no commit, no read of its blob and, in a long queue, hardly one of its own. What a node
that is away for a week leaves behind may be a million entries.

The walk over the queue notes, for all entries of one urgency and placement group together, which
nodes they wait for and at which revision of the engine that was so. While none of these nodes
lives, no profile has an opening that had none, and the group's record is as it was,

* an entry is not tried that has not been written since;
* the entries are not even read, for so long as suits their number: of those that come meanwhile,
  each is one that waits, as a rule.

Nothing of this is written down: another process that takes over tries every entry once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3gw.cluster.topology import Profile, UnknownProfile
from s3gw.metadata import keys
from s3gw.objects.storage import Storage
from s3gw.workers.reencode import Entry

UNREAD_SECONDS_PER_ENTRY = 0.3
UNREAD_SECONDS_MAX = 1800.0


@dataclass(slots=True)
class Obstacle:
    """What keeps entries from going on: nodes that are down, profiles without a placement group
    that has all its nodes."""

    nodes: set[str] = field(default_factory=set)
    profiles: set[str] = field(default_factory=set)

    def add(self, other: Obstacle) -> None:
        self.nodes |= other.nodes
        self.profiles |= other.profiles

    def __bool__(self) -> bool:
        return bool(self.nodes or self.profiles)


@dataclass(slots=True)
class _Part:
    """The entries of one urgency and placement group, read from `revision` at `looked_ms` on, when
    the group's record had `group_revision`. `again_ms` is when the first of them is due again that
    is not due, or was put off."""

    profile: str
    number: int
    group_revision: int
    revision: int
    looked_ms: int
    read: int = 0
    noted: int = 0
    again_ms: int | None = None
    obstacle: Obstacle = field(default_factory=Obstacle)
    unread_until: float = 0.0


class Waiting:
    """The memory of one worker. `read` and `note` follow its walk, `walked` ends it. What nodes
    and groups are like it knows as of the last `look`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[bytes, _Part] = {}
        self._being_read: dict[bytes, _Part] = {}
        self._unchanged: dict[bytes, bool] = {}
        self._openings: dict[str, bool] = {}

    def look(self) -> None:
        """See which nodes live now."""
        self._unchanged.clear()
        self._openings.clear()

    def holds(self, entry: Entry) -> bool:
        """Whether an entry was tried, and still waits for what it waited for then."""
        prefix = _prefix(entry.key)
        part = self._known.get(prefix)
        return (
            part is not None
            and entry.revision <= part.revision
            and entry.record.not_before_ms <= part.looked_ms
            and self._still(prefix, part)
        )

    def unread(self, position: bytes) -> tuple[bytes, bytes]:
        """The next range from a position on that need not be read now; both ends are the end of
        the queue when all is to be read."""
        end = keys.after_prefix(keys.REPAIRS)
        ahead = (prefix for prefix in self._known if prefix >= position and self._rests(prefix))
        first = behind = min(ahead, default=end)
        while behind in self._known and self._rests(behind):
            behind = keys.after_prefix(behind)  # of one profile, group by group
        return first, behind

    def _rests(self, prefix: bytes) -> bool:
        part = self._known[prefix]
        return self._storage.monotonic() < part.unread_until and self._still(prefix, part)

    def read(self, entries: Sequence[Entry], revision: int, now_ms: int) -> None:
        """Entries of the walk, one at least, in order, before they are tried."""
        self._close(keep=_prefix(entries[0].key))
        for entry in entries:
            prefix = _prefix(entry.key)
            part = self._being_read.get(prefix)
            if part is None:
                name, number = entry.record.profile, entry.record.pg
                seen = self._group_revision(name, number)
                part = _Part(name, number, seen, revision, now_ms)
                self._being_read[prefix] = part
            part.read += 1

    def note(self, key: bytes, obstacle: Obstacle | None = None, again_ms: int = 0) -> None:
        """That an entry waits for an obstacle, is to be looked at again at a time, or (neither) is
        gone. One of which nothing is noted is tried again in the next walk."""
        part = self._being_read.get(_prefix(key))
        if part is None:
            return
        part.noted += 1
        if obstacle is not None:
            part.obstacle.add(obstacle)
        if again_ms:
            part.again_ms = min(part.again_ms or again_ms, again_ms)

    def note_held(self, entry: Entry) -> None:
        """That an entry waits as it did before."""
        known = self._known.get(_prefix(entry.key))
        self.note(entry.key, known.obstacle if known is not None else None)

    def walked(self) -> None:
        """The walk has come to the end of the queue."""
        self._close(keep=b"")

    def _close(self, keep: bytes) -> None:
        """Remember the parts that were read to their ends; the walk goes on in `keep`."""
        for prefix in [prefix for prefix in self._being_read if prefix != keep]:
            part = self._being_read.pop(prefix)
            self._known.pop(prefix, None)
            self._unchanged.pop(prefix, None)
            if part.noted == part.read and (part.obstacle or part.again_ms):
                part.unread_until = self._storage.monotonic() + self._unread_seconds(part)
                self._known[prefix] = part

    def _unread_seconds(self, part: _Part) -> float:
        seconds = min(UNREAD_SECONDS_MAX, part.read * UNREAD_SECONDS_PER_ENTRY)
        if part.again_ms is not None:
            seconds = min(seconds, (part.again_ms - self._storage.clock_ms()) / 1000)
        return seconds

    def _still(self, prefix: bytes, part: _Part) -> bool:
        """Whether everything is as bad as it was."""
        known = self._unchanged.get(prefix)
        if known is None:
            known = self._unchanged[prefix] = (
                not any(is_live(self._storage, node) for node in part.obstacle.nodes)
                and not any(map(self._opens, part.obstacle.profiles))
                and self._group_revision(part.profile, part.number) == part.group_revision
            )
        return known

    def _opens(self, name: str) -> bool:
        known = self._openings.get(name)
        if known is None:
            profile = self._storage.blobs.topology.profile(name)
            known = self._openings[name] = has_opening(self._storage, profile)
        return known

    def _group_revision(self, profile: str, number: int) -> int:
        topology = self._storage.blobs.topology
        try:
            return topology.group(topology.profile(profile), number).revision
        except (UnknownProfile, KeyError):
            return 0


def is_live(storage: Storage, node_id: str) -> bool:
    """Whether membership has the node."""
    node = storage.blobs.directory.get(node_id)
    return node is not None and node.live


def has_opening(storage: Storage, profile: Profile) -> bool:
    """Whether a placement group of the profile has all its nodes."""
    live = {node.id for node in storage.blobs.directory.all() if node.live}
    topology = storage.blobs.topology
    return any(
        live.issuperset(topology.group(profile, number).nodes) for number in range(profile.pg_count)
    )


def _prefix(key: bytes) -> bytes:
    """What the keys of all entries begin with that have an entry's urgency and group."""
    return key[:-16]
