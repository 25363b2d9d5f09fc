"""What goes over the wire of the admin API: requests, answers, and the bounds of every value.

Sizes are bytes, times Unix milliseconds, durations seconds. The OpenAPI document is made from
these (s3gw.admin.openapi); a field is added at will, never renamed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from s3gw.cluster.tunables import BOUNDS
from s3gw.metadata.records import Tunables

PAGE_MAX = 1000
PAGE_DEFAULT = 100
UPLOADS_PAGE_MAX = 200
CHANGES_MAX = 1000
WEIGHT_MAX = 2**62
FAIL_SECONDS_MAX = 3600

NodeId = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Cursor = Annotated[
    str, Meta(max_length=8192, pattern="^([0-9a-f]{2})*$", description="`next` of the page before")
]
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="entries per page")]
State = Literal["active", "cordoned", "draining", "out"]


class Problem(Struct):
    """Every answer that is not a success: a code for programs, a line for people."""

    error: str
    message: str


# Paths and queries


class NodePath(Struct, forbid_unknown_fields=True):
    node: NodeId


class BucketPath(Struct, forbid_unknown_fields=True):
    bucket: Annotated[str, Meta(min_length=3, max_length=63, pattern="^[a-z0-9.-]+$")]


class WorkerPath(Struct, forbid_unknown_fields=True):
    worker: Annotated[str, Meta(min_length=1, max_length=64)]


class PageQuery(Struct, forbid_unknown_fields=True):
    limit: Limit = PAGE_DEFAULT
    after: Cursor = ""


class UploadsQuery(Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=UPLOADS_PAGE_MAX, description="entries per page")] = 50
    after: Cursor = ""


class BucketsQuery(Struct, forbid_unknown_fields=True):
    limit: Limit = PAGE_DEFAULT
    after: Annotated[str, Meta(max_length=63, description="name of the last bucket seen")] = ""


# Health


class Live(Struct):
    status: Literal["live"] = "live"


class Ready(Struct):
    """`reason` says why requests cannot be served."""

    status: Literal["ready", "not ready"]
    reason: str = ""


class Health(Struct):
    """0 (nothing works) to 100 (nothing is wrong), and what it lacks."""

    score: Annotated[int, Meta(ge=0, le=100)]
    reasons: list[str]


# Nodes


class Node(Struct):
    """A node (one drive). `state` is the layout's ("" when the layout does not have it); the rest
    is how the answering gateway sees it. `slots` are the placement group slots that it has, or
    gives up at the moment; of one that is to be emptied, `stranded` of them have no other node to
    go to until one is added. Sizes are 0 when it does not answer."""

    node: str
    state: str
    zone: str
    host: str
    weight: int
    live: bool
    suspect: bool
    full: bool
    failing: bool
    slots: int
    capacity_bytes: int
    free_bytes: int
    read_seconds_average: float
    read_seconds_p95: float
    address: str = ""
    version: str = ""
    stranded: int = 0


class Nodes(Struct):
    nodes: list[Node]


class FailRequest(Struct, forbid_unknown_fields=True):
    """`force`: also when too few nodes for writes would be left."""

    seconds: Annotated[int, Meta(ge=1, le=FAIL_SECONDS_MAX)] = 60
    force: bool = False


class FailAnswer(Struct):
    """The node counts as down until `seconds` have passed; 0: no longer."""

    node: str
    seconds: int


class StateAnswer(Struct):
    """What became of the node. `epoch` is the layout that says so; `slots` are left to move off
    it, of which `stranded` have no other node to go to until one is added; `done` says that nothing
    is left to do."""

    node: str
    state: str
    epoch: int
    slots: int
    done: bool
    stranded: int = 0


class Stopping(Struct):
    """What stopping nodes would do to one profile: groups by how many losses they survive then."""

    profile: str
    groups: int
    affected: int
    critical: int
    unreadable: int


class MayStop(Struct):
    """Whether everything still survives one more loss while these nodes (all drives of the host)
    are stopped. `reasons` say why not, or what to know."""

    may_stop: bool
    nodes: list[str]
    reasons: list[str]
    profiles: list[Stopping]
    writable_nodes_left: int
    nodes_needed: int


# Layout


class LayoutNodeView(Struct):
    node: str
    zone: str
    weight: int
    state: str
    host: str


class LayoutView(Struct):
    epoch: int
    created_ms: int
    reason: str
    profiles: list[str]
    nodes: list[LayoutNodeView]


class DraftView(Struct):
    """Staged changes: the nodes as they are to be. `stale` says that the layout has changed since:
    discard the draft and stage again. `draft` is another number after every change of them."""

    epoch: int
    stale: bool
    nodes: list[LayoutNodeView]
    draft: int = 0


class AddNode(Struct, tag="add", tag_field="change", forbid_unknown_fields=True):
    """`weight` is the capacity in bytes; 0: that of the registered drive. Zone and host are the
    registered ones unless given."""

    node: NodeId
    zone: Annotated[str, Meta(max_length=128)] = ""
    weight: Annotated[int, Meta(ge=0, le=WEIGHT_MAX)] = 0
    host: Annotated[str, Meta(max_length=128)] = ""


class RemoveNode(Struct, tag="remove", tag_field="change", forbid_unknown_fields=True):
    node: NodeId


class SetNodeState(Struct, tag="state", tag_field="change", forbid_unknown_fields=True):
    node: NodeId
    state: State


class SetNodeWeight(Struct, tag="weight", tag_field="change", forbid_unknown_fields=True):
    node: NodeId
    weight: Annotated[int, Meta(ge=0, le=WEIGHT_MAX)]


class SetNodeZone(Struct, tag="zone", tag_field="change", forbid_unknown_fields=True):
    node: NodeId
    zone: Name


NodeChange = AddNode | RemoveNode | SetNodeState | SetNodeWeight | SetNodeZone


class StageRequest(Struct, forbid_unknown_fields=True):
    changes: Annotated[list[NodeChange], Meta(min_length=1, max_length=CHANGES_MAX)]


class ProfileMoves(Struct):
    """What a layout means for one profile: slots that move, bytes copied for them (estimated), and
    how many more losses every blob survives while they move and after."""

    profile: str
    moves: int
    bytes: int
    empty_slots: int
    tolerance_during: int
    tolerance_after: int


class PlanView(Struct):
    """`refusals` are the reasons for which `apply` would refuse it unless forced, and `gives_up`
    the slots on removed nodes that would be given up then; `draft` is the number of the staged
    changes that this is the plan of."""

    epoch: int
    moves: int
    bytes: int
    tolerance_during: int
    tolerance_after: int
    profiles: list[ProfileMoves]
    warnings: list[str]
    refusals: list[str]
    draft: int = 0
    gives_up: int = 0


class ApplyRequest(Struct, forbid_unknown_fields=True):
    """`epoch` and `draft`: the layout and the staged changes that were looked at; with others
    applying is refused. `force` gives up what lies on removed nodes; where the plan has refusals,
    `confirm` must repeat its `gives_up`."""

    epoch: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    draft: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    reason: Annotated[str, Meta(max_length=200)] = ""
    force: bool = False
    confirm: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class Applied(Struct):
    epoch: int


class Done(Struct):
    done: bool = True


# Queues


class RepairEntry(Struct):
    """A blob that waits for repair. `urgency`: a lower one comes first."""

    profile: str
    group: int
    blob: str
    urgency: int
    reason: str
    queued_ms: int
    not_before_ms: int
    attempts: int


class Repairs(Struct):
    entries: list[RepairEntry]
    next: str = ""


class UploadEntry(Struct):
    """An open multipart upload, with the parts it has so far."""

    bucket: str
    key: str
    upload_id: str
    state: str
    initiated_ms: int
    age_seconds: float
    parts: int
    bytes: int


class Uploads(Struct):
    entries: list[UploadEntry]
    next: str = ""


class BucketEntry(Struct):
    """`bytes` are those of objects, `pending_bytes` those of parts of open uploads, `trash_bytes`
    those of deleted objects that can be restored."""

    bucket: str
    created_ms: int
    profile: str
    versioning: str
    objects: int
    versions: int
    bytes: int
    uploads: int
    pending_bytes: int
    trash_objects: int = 0
    trash_bytes: int = 0


class Buckets(Struct):
    buckets: list[BucketEntry]
    next: str = ""


class ScrubRound(Struct):
    """A round over all placement groups. `finished_ms` is 0 while it goes on; `unanswered` shards
    could not be asked for."""

    started_ms: int = 0
    finished_ms: int = 0
    groups: int = 0
    shards: int = 0
    bytes: int = 0
    damaged: int = 0
    missing: int = 0
    unanswered: int = 0


class Scrub(Struct):
    """The verification of all shards: of `groups` placement groups in all, the round that goes on
    and the last one that was finished."""

    groups: int
    interval_seconds: float
    bytes_per_second: int
    current: ScrubRound | None = None
    last: ScrubRound | None = None


class Rebalance(Struct):
    """How far the placement groups are from where layout `epoch` wants them: what is left
    (estimated bytes), what was done for it by the processes that live, and when it will be done
    (null while nothing moves)."""

    epoch: int = 0
    groups_left: int = 0
    groups_done: int = 0
    bytes_left: int = 0
    bytes_moved: int = 0
    bytes_rebuilt: int = 0
    bytes_read: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = 0.0


class Snapshot(Struct):
    """A snapshot of the metadata, kept as a blob on the nodes. `items` are its keys."""

    incarnation: int
    revision: int
    created_ms: int
    bytes: int
    items: int


class Snapshots(Struct):
    snapshots: list[Snapshot]


class ChangeProfile(Struct, forbid_unknown_fields=True):
    profile: Name


class ProfileJob(Struct):
    """A change of a bucket's profile. `state`: walking, done or cancelled. `stage` says what the
    walk is at; `blobs_left` are those that this round has met and could not move yet."""

    bucket: str
    sources: list[str]
    target: str
    state: str
    stage: str
    started_ms: int
    ended_ms: int
    blobs_done: int
    bytes_done: int
    blobs_left: int
    rounds: int
    note: str


class RunReport(Struct):
    """What the worker did, in its own words."""

    worker: str
    seconds: float
    report: dict[str, Any]


# Settings


TunablesView = msgspec.defstruct(
    "TunablesView",
    [(field.name, field.type, field.default) for field in msgspec.structs.fields(Tunables)],
    namespace={"__doc__": Tunables.__doc__},
    module=__name__,
)

TunablesChange = msgspec.defstruct(
    "TunablesChange",
    [
        (
            field.name,
            Annotated[field.type, Meta(ge=BOUNDS[field.name][0], le=BOUNDS[field.name][1])]
            | msgspec.UnsetType,
            msgspec.UNSET,
        )
        for field in msgspec.structs.fields(Tunables)
    ],
    namespace={"__doc__": "Settings to change; those not given stay as they are."},
    module=__name__,
    forbid_unknown_fields=True,
)


class ProfileView(Struct):
    """A profile. `tolerance` losses of shards are always survived; `companion` is the profile of
    its small blobs."""

    name: str
    scheme: str
    data: int
    parity: int
    tolerance: int
    stripe_bytes: int
    pg_count: int
    failure_domain: str
    companion: str


class CreateProfile(Struct, forbid_unknown_fields=True):
    """`scheme` as in 4+2, 1+2 (copies) or 8+4/2 (local reconstruction). `pg_count` 0: as many
    groups as balance the present nodes. New objects of `storage_classes` go to this profile."""

    name: Annotated[str, Meta(min_length=1, max_length=32, pattern="^[a-z0-9][a-z0-9+._-]*$")]
    scheme: Annotated[str, Meta(min_length=3, max_length=16)]
    pg_count: Annotated[int, Meta(ge=0, le=65_536)] = 0
    stripe_bytes: Annotated[int, Meta(ge=65_536, le=8_388_608)] = 1_048_576
    failure_domain: Literal["drive", "node", "zone"] = "node"
    storage_classes: Annotated[list[Name], Meta(max_length=16)] = []


class Profiles(Struct):
    profiles: list[ProfileView]


# Summary


class Amount(Struct):
    """References to blobs, and their bytes before coding."""

    blobs: int
    bytes: int


class LedgerTotal(Struct):
    """`full`: everything is there. `reduced`: it survives at least one more loss. `critical`: it
    does not. `lost`: it cannot be read from the nodes that live."""

    full: Amount
    reduced: Amount
    critical: Amount
    lost: Amount


class LedgerRow(Struct):
    bucket: str
    profile: str
    full: Amount
    reduced: Amount
    critical: Amount
    lost: Amount


class LedgerView(Struct):
    """The durability ledger. `healed`: nothing is known to be less than full, and nothing is under
    way that says otherwise."""

    healed: bool
    total: LedgerTotal
    rows: list[LedgerRow]
    repairs_waiting: int
    groups: int
    groups_moving: int
    groups_degraded: int
    nodes_down: list[str]


class NodeCounts(Struct):
    known: int
    live: int
    by_state: dict[str, int]


class Summary(Struct):
    """The store at a glance."""

    store_id: str
    incarnation: int
    version: str
    epoch: int
    health: Health
    nodes: NodeCounts
    capacity_bytes: int
    free_bytes: int
    buckets: int
    objects: int
    bytes: int
    ledger: LedgerTotal
    rebalance: Rebalance
    repairs_waiting: int
    repair_oldest_seconds: float
    engine_used_bytes: int
    engine_quota_bytes: int
