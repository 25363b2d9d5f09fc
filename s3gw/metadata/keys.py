"""The only speller of key bytes.

    store, generation                          one record each
    bucket/<bucket>
    object/<bucket>/<key>                      key: UTF-8, as it is (nothing follows it)
    version/<bucket>/<key*><~sequence:8>       key*: escaped and ended, below
    upload/<bucket>/<key*><upload:16>
    part/<upload:16><number:2>
    manifest/<upload:16><page:2>
    completed/<bucket>/<upload:16>
    holder/<manifest:16><holder>
    fence/<record key>
    blob/<profile>/<pg:2><blob:16><holder>
    reading/<id:16><lease:8>
    count/<profile>/<pg:2><bucket>
    pg/<profile>/<pg:2>
    profile/<profile>, layout/<epoch:8>, node/<id>
    reprofile/<bucket>
    kms/master, kms/rewrap, kms/transit, kms/key/<name>
    draft, tunables, scrub, departure/<node>, failing/<node>
    snapshot/<revision:8>, restored
    usage/<bucket>/<slot:1>, grant/<bucket>, slots/<block:1>
    trash/<bucket>/<key*><~sequence:8>, purge/<due ms:8><holder>
    undo/<bucket>, renamed/<bucket id:16><token:16>
    due/<due ms:8><bucket id:16><subject>, lifecycle/<bucket>, lifecycle
    inventory/<bucket>/<id>, pin/<worker>
    naming/<bucket>/<key*><sequence:8>, names/<bucket>/<key*><sequence:8>
    garbage/<due ms:8><id:16><holder>
    repair/<urgency:1><profile>/<pg:2><blob:16>
    alarm/<profile>/<pg:2>
    lock/<name>, cursor/<worker>, process/<lease:8>, progress/<lease:8>
    signed/<sha256:32>
    identity/generation, identity/user/<name>, identity/group/<name>, identity/role/<name>
    identity/key/<access key>, identity/policy/<name>, identity/provider/<sha256 of its URL:32>

Names of identities are in lower case, as those that differ by case alone are the same. Numbers
are big-endian, so bytes order as numbers do. `~sequence` is the complement, so the newest version
of a key comes first.

`key*` must order as the key does although bytes follow it: 0x00 becomes 0x00 0xff, and the end is
0x00 0x01. "a" (61 00 01) then sorts before "a\\x00" (61 00 ff 00 01) and before "ab" (61 62 00 01).

A holder is what refers to a blob: `o<bucket>/<key*><sequence:8>`, `p<upload:16><number:2>` for a
part, `m<upload:16>` for the blob of a manifest, `j<blob:16>` for the re-encoding of a blob,
`s<revision:8>` for a snapshot of the metadata, and `n<bucket>/<key*><sequence:8>` for the note of
what a version is called.
"""

from __future__ import annotations

from hashlib import blake2b, sha256

SEQUENCE_MAX = 2**64 - 1
FENCE_INTERVAL = 1000

STORE = b"store"
GENERATION = b"generation"
DRAFT = b"draft"
RESTORED = b"restored"
TUNABLES = b"tunables"
SCRUB = b"scrub"

BUCKETS = b"bucket/"
OBJECTS = b"object/"
VERSIONS = b"version/"
UPLOADS = b"upload/"
GARBAGE = b"garbage/"
REPAIRS = b"repair/"
ALARMS = b"alarm/"
NODES = b"node/"
SNAPSHOTS = b"snapshot/"
DEPARTURES = b"departure/"
FAILURES = b"failing/"
PROFILES = b"profile/"
REPROFILES = b"reprofile/"
LAYOUTS = b"layout/"
COMPLETED = b"completed/"
PGS = b"pg/"
COUNTS = b"count/"
BLOBS = b"blob/"
USAGES = b"usage/"
PROGRESS = b"progress/"
TRASH = b"trash/"
MASTER_KEYS = b"kms/master"
REWRAP = b"kms/rewrap"
TRANSIT_PROOF = b"kms/transit"
NAMED_KEYS = b"kms/key/"
PURGES = b"purge/"
UNDOS = b"undo/"
DUE = b"due/"
LIFECYCLES = b"lifecycle/"
LIFECYCLE_RUN = b"lifecycle"
RENAMED = b"renamed/"
NAMINGS = b"naming/"
NAMES = b"names/"
CONFIGURATIONS = b"configuration/"
INVENTORIES = b"inventory/"
PINS = b"pin/"
PROCESSES = b"process/"
IDENTITIES = b"identity/"
IDENTITY_GENERATION = b"identity/generation"
IDENTITY_USERS = b"identity/user/"
IDENTITY_GROUPS = b"identity/group/"
IDENTITY_KEYS = b"identity/key/"
IDENTITY_POLICIES = b"identity/policy/"
IDENTITY_ROLES = b"identity/role/"
IDENTITY_PROVIDERS = b"identity/provider/"
FENCES = b"fence/"
PARTS = b"part/"
MANIFESTS = b"manifest/"
HOLDERS = b"holder/"
# What has fences.
LISTED = (OBJECTS, VERSIONS, UPLOADS, TRASH, COMPLETED, RENAMED)


def after_prefix(prefix: bytes) -> bytes:
    """The first key behind all keys that start with `prefix`.

    >>> after_prefix(b"ab"), after_prefix(b"a\\xff")
    (b'ac', b'b')
    """
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        raise ValueError("no key follows this prefix")
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def escaped(text: str) -> bytes:
    """The escaped form of a key, or of what a key begins with.

    >>> escaped("a\\x00b")
    b'a\\x00\\xffb'
    """
    return text.encode().replace(b"\x00", b"\x00\xff")


def ended(key: str) -> bytes:
    """`key*`: the key escaped and ended.

    >>> ended("a"), ended("a\\x00b")
    (b'a\\x00\\x01', b'a\\x00\\xffb\\x00\\x01')
    """
    return escaped(key) + b"\x00\x01"


def unended(data: bytes) -> tuple[str, bytes]:
    """The key of a `key*`, and the bytes behind it.

    >>> unended(b'a\\x00\\xffb\\x00\\x01rest')
    ('a\\x00b', b'rest')
    """
    end = data.index(b"\x00\x01")
    return data[:end].replace(b"\x00\xff", b"\x00").decode(), data[end + 2 :]


def bucket(name: str) -> bytes:
    return b"bucket/" + name.encode()


def objects(bucket_name: str) -> bytes:
    return b"object/" + bucket_name.encode() + b"/"


def object_(bucket_name: str, key: str) -> bytes:
    return objects(bucket_name) + key.encode()


def versions(bucket_name: str) -> bytes:
    return b"version/" + bucket_name.encode() + b"/"


def versions_of(bucket_name: str, key: str) -> bytes:
    return versions(bucket_name) + ended(key)


def version(bucket_name: str, key: str, sequence: int) -> bytes:
    return versions_of(bucket_name, key) + (SEQUENCE_MAX - sequence).to_bytes(8, "big")


def split_upload(key: bytes) -> tuple[str, str, bytes]:
    """Bucket, object key and id of an upload's key."""
    bucket_name, rest = key[len(UPLOADS) :].split(b"/", 1)
    object_key, upload_id = unended(rest)
    return bucket_name.decode(), object_key, upload_id


def uploads(bucket_name: str) -> bytes:
    return b"upload/" + bucket_name.encode() + b"/"


def upload(bucket_name: str, key: str, upload_id: bytes) -> bytes:
    return uploads(bucket_name) + ended(key) + upload_id


def parts(upload_id: bytes) -> bytes:
    return b"part/" + upload_id


def part(upload_id: bytes, number: int) -> bytes:
    return parts(upload_id) + number.to_bytes(2, "big")


def manifest(upload_id: bytes) -> bytes:
    return b"manifest/" + upload_id


def manifest_page(upload_id: bytes, page: int) -> bytes:
    return manifest(upload_id) + page.to_bytes(2, "big")


def completed(bucket_name: str, upload_id: bytes) -> bytes:
    return COMPLETED + bucket_name.encode() + b"/" + upload_id


def manifest_holders(manifest_id: bytes) -> bytes:
    return b"holder/" + manifest_id


def manifest_holder(manifest_id: bytes, holder: bytes) -> bytes:
    return manifest_holders(manifest_id) + holder


def fence(record_key: bytes) -> bytes:
    return b"fence/" + record_key


def carries_fence(record_key: bytes, secret: bytes) -> bool:
    """Whether this record has a fence: one in FENCE_INTERVAL does, by a keyed hash, so that no
    client can choose keys without fences."""
    digest = blake2b(record_key, key=secret, digest_size=8).digest()
    return int.from_bytes(digest, "big") % FENCE_INTERVAL == 0


def object_holder(bucket_name: str, key: str, sequence: int) -> bytes:
    return b"o" + bucket_name.encode() + b"/" + ended(key) + sequence.to_bytes(8, "big")


def part_holder(upload_id: bytes, number: int) -> bytes:
    return b"p" + upload_id + number.to_bytes(2, "big")


def manifest_blob_holder(upload_id: bytes) -> bytes:
    return b"m" + upload_id


def job_holder(old_blob: bytes) -> bytes:
    return b"j" + old_blob


def snapshot(revision: int) -> bytes:
    return SNAPSHOTS + revision.to_bytes(8, "big")


def snapshot_holder(revision: int) -> bytes:
    return b"s" + revision.to_bytes(8, "big")


def naming(bucket_name: str, key: str, sequence: int) -> bytes:
    """A version whose name is to be noted on the drives."""
    return NAMINGS + object_holder(bucket_name, key, sequence)[1:]


def noted_name(bucket_name: str, key: str, sequence: int) -> bytes:
    """The note of a version's name."""
    return NAMES + object_holder(bucket_name, key, sequence)[1:]


def name_holder(bucket_name: str, key: str, sequence: int) -> bytes:
    return b"n" + object_holder(bucket_name, key, sequence)[1:]


def split_name(key: bytes) -> tuple[str, str, int]:
    """Bucket, object key and sequence of a version whose name is noted, or is to be."""
    return split_object_holder(b"o" + key.split(b"/", 1)[1])


def split_object_holder(holder: bytes) -> tuple[str, str, int]:
    """Bucket, key and sequence of an object version's holder."""
    bucket_name, rest = holder[1:].split(b"/", 1)
    key, sequence = unended(rest)
    return bucket_name.decode(), key, int.from_bytes(sequence, "big")


def pg_blobs(profile: str, pg: int) -> bytes:
    return b"blob/" + profile.encode() + b"/" + pg.to_bytes(2, "big")


def blob(profile: str, pg: int, blob_id: bytes) -> bytes:
    return pg_blobs(profile, pg) + blob_id


def reference(profile: str, pg: int, blob_id: bytes, holder: bytes) -> bytes:
    return blob(profile, pg, blob_id) + holder


def split_reference(key: bytes) -> tuple[str, int, bytes, bytes]:
    """Profile, placement group, blob id and holder of a reference's key."""
    profile, rest = key[len(BLOBS) :].split(b"/", 1)
    return profile.decode(), int.from_bytes(rest[:2], "big"), rest[2:18], rest[18:]


def readings(identity: bytes) -> bytes:
    return b"reading/" + identity


def reading(identity: bytes, lease: int) -> bytes:
    return readings(identity) + lease.to_bytes(8, "big", signed=True)


def count(profile: str, pg: int, bucket_name: str) -> bytes:
    return COUNTS + profile.encode() + b"/" + pg.to_bytes(2, "big") + bucket_name.encode()


def split_count(key: bytes) -> int:
    """The placement group's number in a `count/` key."""
    number = key[len(COUNTS) :].split(b"/", 1)[1][:2]
    return int.from_bytes(number, "big")


def pg(profile: str, number: int) -> bytes:
    return PGS + profile.encode() + b"/" + number.to_bytes(2, "big")


def pgs(profile: str) -> bytes:
    return PGS + profile.encode() + b"/"


def split_pg(key: bytes) -> tuple[str, int]:
    name, number = key[len(PGS) :].split(b"/", 1)
    return name.decode(), int.from_bytes(number, "big")


def group_lock(profile_name: str, number: int) -> bytes:
    """The lock of whoever changes a placement group."""
    return b"lock/pg/" + profile_name.encode() + b"/" + str(number).encode()


def profile(name: str) -> bytes:
    return PROFILES + name.encode()


def reprofile(bucket_name: str) -> bytes:
    """The move of a bucket into another profile."""
    return REPROFILES + bucket_name.encode()


def layout(epoch: int) -> bytes:
    return LAYOUTS + epoch.to_bytes(8, "big")


def node(node_id: str) -> bytes:
    return NODES + node_id.encode()


def departure(node_id: str) -> bytes:
    return DEPARTURES + node_id.encode()


def failing(node_id: str) -> bytes:
    """Exists while a node counts as down because an operator said so."""
    return FAILURES + node_id.encode()


def signed(digest: bytes) -> bytes:
    """Exists while an admin request with this signature must not be done again. `digest`: SHA-256
    of the signature."""
    return b"signed/" + digest


def usages(bucket_name: str) -> bytes:
    return b"usage/" + bucket_name.encode() + b"/"


def usage(bucket_name: str, slot: int) -> bytes:
    return usages(bucket_name) + bytes((slot,))


def configurations(bucket_name: str, kind: str) -> bytes:
    """Key of all configurations of a kind ("inventory", "metrics", …) that a bucket has."""
    return CONFIGURATIONS + bucket_name.encode() + b"/" + kind.encode()


def split_configurations(key: bytes) -> tuple[str, str]:
    """Bucket and kind."""
    bucket_name, kind = key[len(CONFIGURATIONS) :].split(b"/", 1)
    return bucket_name.decode(), kind.decode()


def inventory(bucket_name: str, id_: str) -> bytes:
    """The last report of an inventory configuration."""
    return INVENTORIES + bucket_name.encode() + b"/" + id_.encode()


def split_inventory(key: bytes) -> tuple[str, str]:
    """Bucket and id of the configuration."""
    bucket_name, id_ = key[len(INVENTORIES) :].split(b"/", 1)
    return bucket_name.decode(), id_.decode()


def pin(worker: str) -> bytes:
    """Exists while a worker reads the metadata as they were at this key's revision."""
    return PINS + worker.encode()


def grant(bucket_name: str) -> bytes:
    return b"grant/" + bucket_name.encode()


def slots_block(block: int) -> bytes:
    return b"slots/" + bytes((block,))


def garbage(due_ms: int, identity: bytes, holder: bytes) -> bytes:
    return GARBAGE + due_ms.to_bytes(8, "big") + identity + holder


def garbage_due(due_ms: int) -> bytes:
    """The end of the slice of the queue that is due at `due_ms`."""
    return GARBAGE + (due_ms + 1).to_bytes(8, "big")


def garbage_parts(key: bytes) -> tuple[int, bytes, bytes]:
    """Due time, blob or manifest, and holder of a queue entry."""
    rest = key[len(GARBAGE) :]
    return int.from_bytes(rest[:8], "big"), rest[8:24], rest[24:]


def repair(urgency: int, profile_name: str, pg_number: int, blob_id: bytes) -> bytes:
    return (
        REPAIRS
        + bytes((urgency,))
        + profile_name.encode()
        + b"/"
        + pg_number.to_bytes(2, "big")
        + blob_id
    )


def after_repairs_of_group(key: bytes) -> bytes:
    """The first key behind the entries that have the urgency and placement group of an entry.

    >>> after_repairs_of_group(repair(5, "p", 7, bytes(16))) == repair(5, "p", 8, b"")
    True
    """
    return after_prefix(key[:-16])


def repairs(urgency: int) -> bytes:
    """The part of the repair queue with this urgency."""
    return REPAIRS + bytes((urgency,))


def alarm(profile: str, pg: int) -> bytes:
    """In this placement group too many blobs have no reference."""
    return ALARMS + profile.encode() + b"/" + pg.to_bytes(2, "big")


def lock(name: str) -> bytes:
    return b"lock/" + name.encode()


def cursor(worker: str) -> bytes:
    """How far a worker has come that walks over everything."""
    return b"cursor/" + worker.encode()


def counts(profile: str, pg: int) -> bytes:
    return COUNTS + profile.encode() + b"/" + pg.to_bytes(2, "big")


def named_key(name: str) -> bytes:
    return NAMED_KEYS + name.encode()


def trash(bucket_name: str) -> bytes:
    return TRASH + bucket_name.encode() + b"/"


def trash_of(bucket_name: str, key: str) -> bytes:
    return trash(bucket_name) + ended(key)


def trashed(bucket_name: str, key: str, sequence: int) -> bytes:
    """A version that was deleted or replaced and can be brought back."""
    return trash_of(bucket_name, key) + (SEQUENCE_MAX - sequence).to_bytes(8, "big")


def split_trashed(key: bytes) -> tuple[str, str]:
    """Bucket and object key of what is in the trash."""
    bucket_name, rest = key[len(TRASH) :].split(b"/", 1)
    return bucket_name.decode(), unended(rest)[0]


def purge(due_ms: int, holder: bytes) -> bytes:
    """When the version that is this holder leaves the trash."""
    return PURGES + due_ms.to_bytes(8, "big") + holder


def split_purge(key: bytes) -> tuple[int, bytes]:
    """Due time and holder."""
    rest = key[len(PURGES) :]
    return int.from_bytes(rest[:8], "big"), rest[8:]


def due(due_ms: int, bucket_id: bytes, subject: bytes) -> bytes:
    """When lifecycle rules want something to be looked at: `due_version` or `due_upload`."""
    return DUE + due_ms.to_bytes(8, "big") + bucket_id + subject


def due_until(queue: bytes, due_ms: int) -> bytes:
    """The end of the slice of a queue (`due/`, `purge/`) that is due at `due_ms`."""
    return queue + (due_ms + 1).to_bytes(8, "big")


def due_time(queue: bytes, entry: bytes) -> int:
    """The due time of an entry of such a queue."""
    return int.from_bytes(entry[len(queue) :][:8], "big")


def put_off(queue: bytes, entry: bytes, due_ms: int) -> bytes:
    """The key of the same entry of such a queue at another time."""
    return queue + due_ms.to_bytes(8, "big") + entry[len(queue) + 8 :]


def due_version(key: str, sequence: int) -> bytes:
    """A version of a key; 0: the key as a whole."""
    return b"v" + ended(key) + sequence.to_bytes(8, "big")


def due_upload(key: str, upload_id: bytes) -> bytes:
    return b"u" + ended(key) + upload_id


def split_due(entry: bytes) -> tuple[int, bytes, bytes]:
    """Due time, id of the bucket, and subject."""
    rest = entry[len(DUE) :]
    return int.from_bytes(rest[:8], "big"), rest[8:24], rest[24:]


def split_subject(subject: bytes) -> tuple[str, int, bytes]:
    """Object key, then the sequence of a version or the id of an upload (else -1 and b"")."""
    key, rest = unended(subject[1:])
    if subject[:1] == b"u":
        return key, -1, rest
    return key, int.from_bytes(rest, "big"), b""


def lifecycle(bucket_name: str) -> bytes:
    """The walk over a bucket whose lifecycle rules were changed."""
    return LIFECYCLES + bucket_name.encode()


def undo(bucket_name: str) -> bytes:
    """The last undo of a prefix of a bucket with versioning."""
    return UNDOS + bucket_name.encode()


def renamed(bucket_id: bytes, token: bytes) -> bytes:
    """Answers the retries of a RenameObject with a client token. `token`: a digest of it."""
    return RENAMED + bucket_id + token


def process(lease: int) -> bytes:
    """Exists while the process that holds the lease lives."""
    return PROCESSES + lease.to_bytes(8, "big", signed=True)


def progress(lease: int) -> bytes:
    """What the process that holds the lease says of the moves of placement groups."""
    return PROGRESS + lease.to_bytes(8, "big", signed=True)


def identity_user(name: str) -> bytes:
    return IDENTITY_USERS + name.lower().encode()


def identity_group(name: str) -> bytes:
    return IDENTITY_GROUPS + name.lower().encode()


def identity_key(access_key: str) -> bytes:
    return IDENTITY_KEYS + access_key.encode()


def identity_policy(name: str) -> bytes:
    """A managed policy."""
    return IDENTITY_POLICIES + name.lower().encode()


def identity_role(name: str) -> bytes:
    return IDENTITY_ROLES + name.lower().encode()


def identity_provider(url: str) -> bytes:
    """An OpenID Connect provider."""
    return IDENTITY_PROVIDERS + sha256(url.encode()).digest()
