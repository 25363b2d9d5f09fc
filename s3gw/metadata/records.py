"""The records kept in the metadata engine.

A stored value is one format byte followed by a MessagePack array in the order of the fields
below. Readers accept shorter arrays (the missing fields have defaults), so a field is only ever
appended; a change that this cannot express takes a new format byte. Times are Unix milliseconds,
sizes bytes. Tagged unions carry their tag as the first element of the array.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

FORMAT = b"\x01"


class BlobRef(msgspec.Struct, array_like=True, frozen=True, tag="b"):
    """Where the bytes are: a blob of `size` stored bytes in `profile`.

    `nodes` and `scheme` are given only for a blob that does not lie on its placement group's
    present slots (a write around a lost node): `nodes[i]` holds shard i ("" where none does).
    `crc64` is the CRC64NVME of the stored bytes.
    """

    profile: str
    blob: bytes
    size: int
    crc64: int
    nodes: tuple[str, ...] = ()
    scheme: str = ""


class ManifestRef(msgspec.Struct, array_like=True, frozen=True, tag="m"):
    """An object completed from parts. `page_offsets[i]` is the first byte of page i, and
    `page_parts` the number of parts of every page but the last. `blob` is the manifest's own
    blob, which rescue reads."""

    manifest: bytes
    part_count: int
    page_offsets: tuple[int, ...]
    page_parts: int
    blob: BlobRef


Data = BlobRef | ManifestRef


class Checksums(msgspec.Struct, array_like=True, frozen=True):
    """Checksums that the client asked for: S3 algorithm name to base64 text."""

    values: dict[str, str] = {}
    kind: str = ""


class Lock(msgspec.Struct, array_like=True, frozen=True):
    """Object lock of a version."""

    mode: str = ""
    until_ms: int = 0
    legal_hold: bool = False


class Encryption(msgspec.Struct, array_like=True, frozen=True):
    """How a version is encrypted at rest. `kind`: AES256 (SSE-S3), aws:kms or customer (SSE-C).
    `key_name` names the key of SSE-KMS as clients see it (an ARN), and `context` is its encryption
    context (JSON, base64). `wrapped_key` is the data key, wrapped (s3gw.objects.keyring.ring)."""

    kind: str = ""
    key_name: str = ""
    wrapped_key: bytes = b""
    context: str = ""
    bucket_key: bool = False


class Description(msgspec.Struct, array_like=True, frozen=True):
    """What a client says about an object when it creates it; the same for PutObject,
    CreateMultipartUpload and CopyObject. `headers` holds the stored content headers by their
    lower-case names, Content-Type among them; `user` the `x-amz-meta-` names without prefix."""

    headers: dict[str, str] = {}
    user: dict[str, str] = {}
    tags: dict[str, str] = {}
    storage_class: str = "STANDARD"
    lock: Lock | None = None
    encryption: Encryption | None = None
    compression: str = ""
    redirect: str = ""
    acl: bytes = b""


class ObjectRecord(msgspec.Struct, array_like=True, frozen=True):
    """One version of an object, or a delete marker (`data` None and `marker` True).

    `sequence` orders the versions of a key and is never used twice. `null_version` says that
    this is the null version; `null_sequence` names the key's null version, 0 for none.
    `size` is what the client sees, before compression and encryption. `noncurrent_ms` is when a
    noncurrent version became that; of others it is 0.
    """

    sequence: int
    modified_ms: int
    owner: str
    size: int
    etag: str
    data: Data | None
    description: Description
    checksums: Checksums = Checksums()
    content_id: bytes = b""
    marker: bool = False
    null_version: bool = True
    null_sequence: int = 0
    noncurrent_ms: int = 0


class BucketRecord(msgspec.Struct, array_like=True, frozen=True):
    """A bucket. `documents` holds its sub-resource configurations by their name. `placement` says
    where its blobs should rather lie: "spread", "latency" or "balanced" ("" as well). Without
    versioning, what is deleted or replaced stays in the trash for `trash_ms` (0: it does not)."""

    created_ms: int
    owner: str
    region: str
    profile: str
    bucket_id: bytes
    versioning: str = ""
    object_lock: bool = False
    documents: dict[str, bytes] = {}
    tags: dict[str, str] = {}
    quota_bytes: int = 0
    placement: str = ""
    trash_ms: int = 0


class Configurations(msgspec.Struct, array_like=True, frozen=True):
    """The configurations of one kind that a bucket has many of: id to document, in the order of
    the ids. Beside the bucket's record, which every request reads, as these can be a thousand."""

    by_id: dict[str, bytes] = {}


class UploadRecord(msgspec.Struct, array_like=True, frozen=True):
    """A multipart upload. `state` is "open" or "completing"; `owner_lease` is the lease of the
    process that completes it. `initiator` is the ARN of who began it, "" for the owner;
    `initiator_id` the unique id."""

    initiated_ms: int
    owner: str
    description: Description
    checksum_algorithm: str = ""
    checksum_type: str = ""
    profile: str = ""
    state: str = "open"
    owner_lease: int = 0
    attempt: bytes = b""
    initiator: str = ""
    initiator_id: str = ""


class Content(msgspec.Struct, array_like=True, frozen=True):
    """How the stored bytes of a part come from its content (s3gw.objects.content). `crc64` is the
    CRC64NVME of the content. `wrapped_key` is the part's own data key, wrapped under that of the
    upload, where it is another one."""

    content_id: bytes
    crc64: int
    compression: str = ""
    wrapped_key: bytes = b""


class PartRecord(msgspec.Struct, array_like=True, frozen=True):
    """One uploaded part, in `part/` while the upload is open and in the pages of a manifest
    afterwards. `crc64` of the reference is that of the stored bytes; without `content` these are
    the part's as they were sent. `object_key` is that of the upload of a part that shares the
    blob of another object, whose key is in the footers; pages do without it."""

    number: int
    size: int
    etag: str
    modified_ms: int
    blob: BlobRef
    checksums: Checksums = Checksums()
    content: Content | None = None
    object_key: str = ""


class ManifestPage(msgspec.Struct, array_like=True, frozen=True):
    """Up to a thousand parts of a completed upload, in order."""

    parts: tuple[PartRecord, ...]


class CompletedRecord(msgspec.Struct, array_like=True, frozen=True):
    """Answers a retried CompleteMultipartUpload. `digest` is of the part list that was sent,
    `encryption` what is said of it: without the wrapped key."""

    key: str
    digest: bytes
    etag: str
    version_id: str
    checksums: Checksums
    expires_ms: int
    encryption: Encryption | None = None


class RenamedRecord(msgspec.Struct, array_like=True, frozen=True):
    """Answers a retried RenameObject. `digest` is of its parameters; `version_id` as answered."""

    digest: bytes
    expires_ms: int
    version_id: str = ""


class TrashRecord(msgspec.Struct, array_like=True, frozen=True):
    """A version that was deleted or replaced in a bucket without versioning, restorable until
    `purge_ms`. It keeps the references that it had. `bucket_id` is that of its bucket: one made
    later under the same name does not count it."""

    record: ObjectRecord
    trashed_ms: int
    purge_ms: int
    bucket_id: bytes


class UndoJob(msgspec.Struct, array_like=True, frozen=True):
    """Making the versions under `prefix` visible again that were so at `at_ms`.

    `state`: walking, done or cancelled; `cursor` is the last key that was looked at. Keys whose
    newest version has a sequence from `sequence` on were written since: `left` counts them. `keys`
    counts all, `restored` those that got a copy of a version, `hidden` those that got a delete
    marker."""

    prefix: str
    at_ms: int
    sequence: int
    started_ms: int
    state: str = "walking"
    cursor: str = ""
    keys: int = 0
    restored: int = 0
    hidden: int = 0
    left: int = 0
    ended_ms: int = 0
    note: str = ""


class Reference(msgspec.Struct, array_like=True, frozen=True):
    """One holder's hold on a blob. `dropped_due_ms` is 0 while it is live. `nodes` and `scheme`
    as in BlobRef, for workers."""

    size: int
    bucket: str
    dropped_due_ms: int = 0
    nodes: tuple[str, ...] = ()
    scheme: str = ""


class Garbage(msgspec.Struct, array_like=True, frozen=True):
    """A queue entry of the collector: a dropped reference (`reference` is its key), or a
    manifest whose parts are to be looked at. `attempts`: how often it was put off since a node that
    may have shards of the blob did not answer."""

    reference: bytes = b""
    manifest: bytes = b""
    bucket: str = ""
    stage: str = ""
    attempts: int = 0


class Repair(msgspec.Struct, array_like=True, frozen=True):
    """A queue entry of the repair worker: what is known to be wrong with a blob. It is not looked
    at before `not_before_ms`. `copy` is the blob that is to replace it, once that is written.
    `lost` are the indexes of shards known to be missing or damaged, in order. With a `target` the
    blob is to go to that profile, as far as objects of `bucket` hold it."""

    profile: str
    pg: int
    blob: bytes
    reason: str
    queued_ms: int
    not_before_ms: int = 0
    attempts: int = 0
    copy: BlobRef | None = None
    lost: tuple[int, ...] = ()
    target: str = ""
    bucket: str = ""


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """The placement group that a walking worker comes to next."""

    profile: str
    pg: int


class MergeAlarm(msgspec.Struct, array_like=True, frozen=True):
    """In a placement group so many blobs have no reference that none is removed. It stays until a
    whole look at the group finds nothing of the kind."""

    reason: str
    since_ms: int


class ScrubRound(msgspec.Struct, array_like=True, frozen=True):
    """One round of shard verification over all placement groups. `finished_ms` is 0 while it goes
    on. Shards and bytes verified, shards found damaged, missing, and not to be asked for."""

    started_ms: int = 0
    finished_ms: int = 0
    groups: int = 0
    shards: int = 0
    bytes: int = 0
    damaged: int = 0
    missing: int = 0
    unanswered: int = 0


class ScrubState(msgspec.Struct, array_like=True, frozen=True):
    """The round that goes on (without start: none does), and the last one that was finished."""

    current: ScrubRound = ScrubRound()
    last_round: ScrubRound = ScrubRound()


class Usage(msgspec.Struct, array_like=True, frozen=True):
    """A bucket's counters in one slot; only the sum over slots means something."""

    objects: int = 0
    versions: int = 0
    markers: int = 0
    uploads: int = 0
    bytes: int = 0
    pending_bytes: int = 0
    trash_objects: int = 0
    trash_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.objects + other.objects,
            self.versions + other.versions,
            self.markers + other.markers,
            self.uploads + other.uploads,
            self.bytes + other.bytes,
            self.pending_bytes + other.pending_bytes,
            self.trash_objects + other.trash_objects,
            self.trash_bytes + other.trash_bytes,
        )

    @property
    def empty(self) -> bool:
        return self == Usage()


class Count(msgspec.Struct, array_like=True, frozen=True):
    """References, live and dropped, of one bucket in one placement group, and their bytes."""

    references: int = 0
    bytes: int = 0


class Slot(msgspec.Struct, array_like=True, frozen=True):
    """One slot of a placement group: its node ("" = none) and, while the shards are on their way to
    that node, who may still hold them ("" among them: the slot was empty before)."""

    node: str
    holders_before: tuple[str, ...] = ()


class PgRecord(msgspec.Struct, array_like=True, frozen=True):
    """The truth about a placement group. `revision` is its own counter, raised by each change."""

    revision: int
    slots: tuple[Slot, ...]


class ProfileRecord(msgspec.Struct, array_like=True, frozen=True):
    """A profile as made: scheme text ("4+2"), stripe size, number of groups, failure domain.
    `companion` names the profile of copies for small blobs; a companion has none itself. Objects
    of `storage_classes` are stored in this profile, whatever that of their bucket."""

    scheme: str
    stripe_bytes: int
    pg_count: int
    failure_domain: str
    companion: str
    storage_classes: tuple[str, ...] = ()


class ReprofileJob(msgspec.Struct, array_like=True, frozen=True):
    """The move of a bucket's blobs into another profile, from those that it had before.

    `state`: walking, done or cancelled. `stage` and `cursor` say where the walk is: of objects,
    versions or uploads, behind this key. `blobs_done` and `bytes_done` count what was moved in all
    rounds, `blobs_left` what this round met and could not move yet; `rounds` those that ended.
    `met` says that this round has met blobs of the former profiles, or what may become such."""

    sources: tuple[str, ...]
    target: str
    started_ms: int
    state: str = "walking"
    stage: str = ""
    cursor: bytes = b""
    blobs_done: int = 0
    bytes_done: int = 0
    blobs_left: int = 0
    rounds: int = 0
    ended_ms: int = 0
    note: str = ""
    met: bool = False


class LayoutNode(msgspec.Struct, array_like=True, frozen=True):
    """A node (one drive) as a layout sees it. `state`: active, cordoned, draining, or out (it was
    down for too long: it keeps its place in the books and gets no slot). `host` groups the drives
    of one machine or process; "" is a host of its own."""

    node: str
    zone: str
    weight: int
    state: str = "active"
    host: str = ""


class LayoutRecord(msgspec.Struct, array_like=True, frozen=True):
    """One epoch of the layout that the placement group records move towards.

    `assignments` gives, by profile, the target of every slot: two bytes (big-endian) per slot in
    order of group and slot, an index into `nodes`, 0xffff for none. The first layout has none: its
    groups were made as it wants them.
    """

    created_ms: int
    nodes: tuple[LayoutNode, ...]
    profiles: tuple[str, ...]
    assignments: dict[str, bytes] = {}
    reason: str = ""


class LayoutDraft(msgspec.Struct, array_like=True, frozen=True):
    """Changes that an operator has staged on top of layout `epoch`, and not applied yet."""

    epoch: int
    nodes: tuple[LayoutNode, ...]


class MoveProgress(msgspec.Struct, array_like=True, frozen=True):
    """How far one process has come with the moves to layout `epoch`: groups and bytes left (of the
    whole store, as it sees it), groups done, and bytes copied, bytes rebuilt and bytes read for
    that (its own), and its present rate."""

    epoch: int
    groups_left: int = 0
    groups_done: int = 0
    bytes_left: int = 0
    bytes_moved: int = 0
    bytes_rebuilt: int = 0
    bytes_read: int = 0
    bytes_per_second: float = 0.0


class Departure(msgspec.Struct, array_like=True, frozen=True):
    """How long a node has been down, in seconds that some worker has counted by its own monotonic
    clock. Time that a flapping node spends down adds up; it is forgotten when the node has been
    well for as long (`well_seconds`). `hold_seconds`: for how long still no node is taken out,
    because this one went down together with many. `state`: what the node was before it was taken
    out."""

    down_seconds: float
    well_seconds: float = 0.0
    hold_seconds: float = 0.0
    state: str = "active"


class FailSimulation(msgspec.Struct, array_like=True, frozen=True):
    """An operator's wish that a node count as down, for `seconds`: its key's lease runs so long."""

    node: str
    seconds: int


class Tunables(msgspec.Struct, array_like=True, frozen=True):
    """Settings that an operator changes while everything runs. Rates are bytes per second of one
    process, 0 for no limit."""

    rebuild_after_seconds: float = 600.0
    hold_down_seconds: float = 1800.0
    rebuild_bytes_per_second: int = 64 * 1024 * 1024
    rebuild_groups_at_once: int = 4
    scrub_bytes_per_second: int = 32 * 1024 * 1024
    scrub_interval_seconds: float = 7 * 24 * 3600.0


class NodeRecord(msgspec.Struct, array_like=True, frozen=True):
    """A registered drive. `node` (its id) names it in placement; `host` groups the drives of one
    process. `nonce` proves that a takeover comes from the same drive."""

    address: str
    zone: str
    host: str
    capacity_bytes: int
    free_bytes: int
    nonce: str
    version: str
    registered_ms: int


class StoreRecord(msgspec.Struct, array_like=True, frozen=True):
    """Identity and secrets of the store, made once. `incarnation` grows with each restore."""

    store_id: str
    created_ms: int
    incarnation: int
    sequence_offset: int
    fence_secret: bytes
    token_secret: bytes
    cluster_secret: bytes

    def __repr__(self) -> str:
        return f"StoreRecord(store_id={self.store_id!r}, incarnation={self.incarnation})"


class SnapshotRecord(msgspec.Struct, array_like=True, frozen=True):
    """A snapshot of the metadata as it was at `revision`, kept as a blob. `size` is that of the
    snapshot's file, `items` the number of keys in it."""

    revision: int
    created_ms: int
    incarnation: int
    size: int
    items: int
    blob: BlobRef


class NameRecord(msgspec.Struct, array_like=True, frozen=True):
    """That a version has another name than its shards say: until it is noted on the drives
    (`naming/`), and from then on (`names/`). `former` is the key that its content, `content_id`,
    lost by the commit that gave it this one, "" where versions keep it; `blob` is the note. What
    could not be noted `attempts` times is not tried again before `not_before_ms`."""

    content_id: bytes
    former: str = ""
    blob: BlobRef | None = None
    not_before_ms: int = 0
    attempts: int = 0


class RestoredRecord(msgspec.Struct, array_like=True, frozen=True):
    """The metadata was restored or rebuilt. `state`: "writing" while that goes on, "held" until an
    operator confirms the result; blobs that nothing refers to are not removed meanwhile.
    `revision` is that of the metadata it came from, 0 when it came from shards alone."""

    state: str
    restored_ms: int
    incarnation: int
    revision: int


R = TypeVar("R", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}


class RecordFormatError(Exception):
    """A stored value is not what this version can read."""


def encode(record: msgspec.Struct) -> bytes:
    """The stored form of a record."""
    return FORMAT + _encoder.encode(record)


def decode(kind: type[R], value: bytes) -> R:
    """Read a stored value. Raises RecordFormatError."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    if value[:1] != FORMAT:
        raise RecordFormatError(f"{kind.__name__}: format {value[:1].hex()} is not known")
    try:
        record: R = decoder.decode(memoryview(value)[1:])
    except msgspec.MsgspecError as error:
        raise RecordFormatError(f"{kind.__name__}: {error}") from error
    return record
