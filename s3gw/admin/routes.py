"""The routes of the admin port: the one table that serving, checking, the OpenAPI document, its
page in docs/, and the tests are made from.

A handler is called with the port and, by name, with `path`, `query` and `body` as far as its row
has them, converted and checked. It answers a Struct, or raises Refusal.
"""

from __future__ import annotations

from typing import Any

from s3gw.admin import (
    layout,
    models,
    nodes,
    queues,
    settings,
    simulation,
    summary,
)
from s3gw.admin.encryption_routes import ENCRYPTION_ROWS, KEY_EXAMPLES
from s3gw.admin.identity_routes import EXAMPLES, IDENTITY_ROWS
from s3gw.admin.inventories import INVENTORY_ROWS
from s3gw.admin.lifecycle import LIFECYCLE_ROWS
from s3gw.admin.port import AdminPort
from s3gw.admin.row import Handler, Row
from s3gw.admin.undo_routes import UNDO_ROWS


async def live(port: AdminPort) -> models.Live:
    """As long as the process serves."""
    return models.Live()


def _node_action(name: str, text: str, handler: Handler) -> Row:
    return Row(
        "POST",
        f"/admin/nodes/{{node}}/{name}",
        f"{name}Node",
        text,
        handler,
        models.StateAnswer,
        path_type=models.NodePath,
        conflicts=True,
    )


ROWS: tuple[Row, ...] = (
    Row(
        "GET",
        "/health/live",
        "getLiveness",
        "The process serves",
        live,
        models.Live,
        open_to_all=True,
    ),
    Row(
        "GET",
        "/health",
        "getHealth",
        "Health score 0 to 100, with reasons; at most 5 seconds old",
        summary.health,
        models.Health,
        open_to_all=True,
    ),
    Row(
        "GET",
        "/admin/summary",
        "getSummary",
        "The store at a glance",
        summary.summary,
        models.Summary,
    ),
    Row("GET", "/admin/nodes", "listNodes", "All nodes", nodes.list_nodes, models.Nodes),
    Row(
        "GET",
        "/admin/nodes/{node}",
        "getNode",
        "One node",
        nodes.show_node,
        models.Node,
        path_type=models.NodePath,
    ),
    _node_action("cordon", "Give the node no new shards; it keeps what it holds", nodes.cordon),
    _node_action("uncordon", "Take a cordon back", nodes.uncordon),
    _node_action("drain", "Move everything off the node; it stays in the layout", nodes.drain),
    _node_action(
        "decommission",
        "Drain the node, and once it is empty remove it: repeat until `done`",
        nodes.decommission,
    ),
    _node_action("activate", "Let the node hold its share again", nodes.activate),
    Row(
        "POST",
        "/admin/nodes/{node}/fail",
        "failNode",
        "Let every process treat the node as down for a while",
        nodes.fail,
        models.FailAnswer,
        path_type=models.NodePath,
        body_type=models.FailRequest,
        conflicts=True,
    ),
    Row(
        "DELETE",
        "/admin/nodes/{node}/fail",
        "endNodeFailure",
        "End the simulated failure at once",
        nodes.end_fail,
        models.FailAnswer,
        path_type=models.NodePath,
    ),
    Row(
        "GET",
        "/admin/nodes/{node}/may-stop",
        "mayStopNode",
        "Would everything survive one more loss with this node stopped?",
        nodes.may_stop,
        models.MayStop,
        path_type=models.NodePath,
    ),
    Row("GET", "/admin/layout", "getLayout", "The layout as it is", layout.show, models.LayoutView),
    Row(
        "GET",
        "/admin/layout/draft",
        "getDraft",
        "The staged changes",
        layout.show_draft,
        models.DraftView,
    ),
    Row(
        "POST",
        "/admin/layout/draft",
        "stageChanges",
        "Stage changes of nodes, all or none",
        layout.stage,
        models.DraftView,
        body_type=models.StageRequest,
        conflicts=True,
    ),
    Row(
        "DELETE",
        "/admin/layout/draft",
        "discardDraft",
        "Forget the staged changes",
        layout.discard,
        models.Done,
    ),
    Row(
        "GET",
        "/admin/layout/plan",
        "planLayout",
        "What applying the staged changes would move and risk",
        layout.plan,
        models.PlanView,
        conflicts=True,
    ),
    Row(
        "POST",
        "/admin/layout/apply",
        "applyLayout",
        "Make the staged changes the next layout",
        layout.apply,
        models.Applied,
        body_type=models.ApplyRequest,
        conflicts=True,
    ),
    Row(
        "GET",
        "/admin/rebalances",
        "getRebalances",
        "What is left to move towards the layout",
        summary.rebalances,
        models.Rebalance,
    ),
    Row(
        "GET",
        "/admin/ledger",
        "getLedger",
        "Blobs and bytes by redundancy, per bucket and profile",
        summary.show_ledger,
        models.LedgerView,
    ),
    Row(
        "GET",
        "/admin/repairs",
        "listRepairs",
        "Blobs that wait for repair, the most urgent first",
        queues.repairs,
        models.Repairs,
        query_type=models.PageQuery,
    ),
    Row(
        "GET",
        "/admin/uploads",
        "listUploads",
        "Open multipart uploads of all buckets",
        queues.uploads,
        models.Uploads,
        query_type=models.UploadsQuery,
    ),
    Row(
        "GET",
        "/admin/buckets",
        "listBuckets",
        "Buckets by name, with what is in them",
        queues.buckets,
        models.Buckets,
        query_type=models.BucketsQuery,
    ),
    Row(
        "POST",
        "/admin/buckets/{bucket}/profile",
        "changeBucketProfile",
        "Give a bucket another profile; a job moves what it has",
        queues.change_profile,
        models.ProfileJob,
        path_type=models.BucketPath,
        body_type=models.ChangeProfile,
        conflicts=True,
    ),
    Row(
        "GET",
        "/admin/buckets/{bucket}/profile",
        "getBucketProfileJob",
        "How far the last change of a bucket's profile has come",
        queues.profile_job,
        models.ProfileJob,
        path_type=models.BucketPath,
    ),
    Row(
        "DELETE",
        "/admin/buckets/{bucket}/profile",
        "cancelBucketProfileJob",
        "Stop the job; the bucket keeps its new profile",
        queues.cancel_profile_job,
        models.ProfileJob,
        path_type=models.BucketPath,
        conflicts=True,
    ),
    *UNDO_ROWS,
    Row(
        "GET",
        "/admin/profiles",
        "listProfiles",
        "Profiles, and what each survives",
        settings.profiles,
        models.Profiles,
    ),
    Row(
        "POST",
        "/admin/profiles",
        "createProfile",
        "Make a profile; one that is just so already is no error",
        settings.create_profile,
        models.ProfileView,
        body_type=models.CreateProfile,
        conflicts=True,
    ),
    Row(
        "GET",
        "/admin/tunables",
        "getTunables",
        "Settings that are changed while the store runs",
        settings.show_tunables,
        models.TunablesView,
    ),
    Row(
        "PUT",
        "/admin/tunables",
        "changeTunables",
        "Change some of these settings, for all processes",
        settings.change_tunables,
        models.TunablesView,
        body_type=models.TunablesChange,
    ),
    Row(
        "GET",
        "/admin/scrub",
        "getScrub",
        "How far the verification of all shards has come",
        queues.scrub,
        models.Scrub,
    ),
    Row(
        "GET",
        "/admin/snapshots",
        "listSnapshots",
        "Snapshots of the metadata that the nodes keep",
        queues.snapshots,
        models.Snapshots,
    ),
    Row(
        "POST",
        "/admin/snapshots",
        "takeSnapshot",
        "Take a snapshot of the metadata now",
        queues.take_snapshot,
        models.Snapshot,
    ),
    Row(
        "POST",
        "/admin/run/{worker}",
        "runWorker",
        "Run a background worker to its end now",
        queues.run,
        models.RunReport,
        path_type=models.WorkerPath,
        repeatable=True,
    ),
    Row(
        "POST",
        "/admin/policy/simulate",
        "simulatePolicy",
        "What would be decided about a request, and which statement decides it",
        simulation.simulate,
        simulation.Simulated,
        body_type=simulation.SimulateRequest,
        repeatable=True,
    ),
    *LIFECYCLE_ROWS,
    *INVENTORY_ROWS,
    *ENCRYPTION_ROWS,
    *IDENTITY_ROWS,
)

# Not in the table, because their answers are not one Struct with status 200.
READY = "/health/ready"
METRICS = "/metrics"
DOCUMENT = "/openapi.json"


def examples() -> dict[str, Any]:
    """A valid value for every path parameter that a row names."""
    mine = {"node": "d0", "bucket": "bucket", "worker": "garbage", "inventory": "one"}
    return {**mine, **KEY_EXAMPLES, **EXAMPLES}
