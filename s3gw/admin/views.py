"""The answers of the admin API as text for people: one function per command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3gw.admin.encryption_views import ENCRYPTION_VIEWS
from s3gw.admin.identity_views import IDENTITY_VIEWS
from s3gw.admin.inventory_command import INVENTORY_VIEWS
from s3gw.admin.lifecycle_views import show_lifecycle
from s3gw.admin.terminal import duration, facts, moment, plain, size, table
from s3gw.admin.undo_views import UNDO_VIEWS

Answer = Mapping[str, Any]
REDUNDANCIES = ("full", "reduced", "critical", "lost")

__all__ = ["VIEWS", "moves_left", "plain", "profile_progress", "slots_left"]


def _summary(answer: Answer) -> str:
    nodes = answer["nodes"]
    states = ", ".join(f"{count} {state}" for state, count in sorted(nodes["by_state"].items()))
    used = answer["capacity_bytes"] - answer["free_bytes"]
    ledger = answer["ledger"]
    worse = ", ".join(
        f"{ledger[name]['blobs']} {name}" for name in REDUNDANCIES[1:] if ledger[name]["blobs"]
    )
    lines = [
        ("store", answer["store_id"]),
        ("version", answer["version"]),
        ("health", f"{answer['health']['score']} of 100"),
        ("nodes", f"{nodes['live']} of {nodes['known']} live ({states})"),
        ("space", f"{size(used)} of {size(answer['capacity_bytes'])} used"),
        ("buckets", answer["buckets"]),
        ("objects", f"{answer['objects']} ({size(answer['bytes'])})"),
        ("redundancy", worse or f"all {ledger['full']['blobs']} blobs whole"),
        ("repairs", _waiting(answer["repairs_waiting"], answer["repair_oldest_seconds"])),
        ("layout", f"epoch {answer['epoch']}, {_left(answer['rebalance'])}"),
        ("engine", size(answer["engine_used_bytes"])),
    ]
    return "\n".join([facts(lines), *_reasons(answer["health"]["reasons"])])


def _waiting(count: int, oldest_seconds: float) -> str:
    return (
        f"{count} waiting, the oldest for {duration(oldest_seconds)}" if count else "none waiting"
    )


def _reasons(reasons: list[str]) -> list[str]:
    return [f"  - {plain(reason)}" for reason in reasons]


def _health(answer: Answer) -> str:
    return "\n".join([f"{answer['score']} of 100", *_reasons(answer["reasons"])])


def _condition(node: Answer) -> str:
    """How a node is, in a word or two."""
    if node["failing"]:
        return "down (simulated)"
    if not node["live"]:
        return "down"
    return ", ".join(name for name in ("suspect", "full") if node[name]) or "up"


def _nodes(answer: Answer) -> str:
    return table(
        ["node", "zone", "state", "is", "slots", "used", "capacity", "read p95", "address"],
        [
            [
                node["node"],
                node["zone"],
                node["state"] or "not in the layout",
                _condition(node),
                node["slots"],
                size(node["capacity_bytes"] - node["free_bytes"]),
                size(node["capacity_bytes"]),
                f"{node['read_seconds_p95'] * 1000:.1f} ms",
                node["address"],
            ]
            for node in answer["nodes"]
        ],
    )


def _node(node: Answer) -> str:
    return facts(
        [
            ("node", node["node"]),
            ("is", _condition(node)),
            ("state", node["state"] or "not in the layout"),
            ("zone", node["zone"]),
            ("host", node["host"]),
            ("weight", node["weight"]),
            ("slots", node["slots"]),
            ("used", size(node["capacity_bytes"] - node["free_bytes"])),
            ("capacity", size(node["capacity_bytes"])),
            ("read average", f"{node['read_seconds_average'] * 1000:.1f} ms"),
            ("read p95", f"{node['read_seconds_p95'] * 1000:.1f} ms"),
            ("address", node["address"]),
            ("version", node["version"]),
        ]
    )


def _state(answer: Answer) -> str:
    if not answer["state"]:
        return f"{plain(answer['node'])} has left the layout (epoch {answer['epoch']})"
    rest = f", {answer['slots']} slots to move off it" if not answer["done"] else ""
    return f"{plain(answer['node'])} is {answer['state']} (epoch {answer['epoch']}){rest}" + (
        _stranded(answer)
    )


def _stranded(answer: Answer) -> str:
    if not answer["stranded"]:
        return ""
    return f", {answer['stranded']} of them have no other node to go to: add one"


def _fail(answer: Answer) -> str:
    if not answer["seconds"]:
        return f"{plain(answer['node'])} does not count as down any more"
    return f"{plain(answer['node'])} counts as down for {answer['seconds']} seconds"


def _may_stop(answer: Answer) -> str:
    nodes = plain(", ".join(answer["nodes"]))
    words = f"{nodes} may be stopped" if answer["may_stop"] else f"{nodes} must not be stopped now"
    left = f"{answer['writable_nodes_left']} nodes would take writes, {answer['nodes_needed']} must"
    rows = [
        [row["profile"], row["groups"], row["affected"], row["critical"], row["unreadable"]]
        for row in answer["profiles"]
    ]
    headings = ["profile", "groups", "not whole then", "critical", "unreadable"]
    return "\n".join([words, *_reasons(answer["reasons"]), "", table(headings, rows), left])


def _layout_nodes(answer: Answer) -> str:
    return table(
        ["node", "zone", "weight", "state", "host"],
        [
            [node["node"], node["zone"], node["weight"], node["state"], node["host"]]
            for node in answer["nodes"]
        ],
    )


def _layout(answer: Answer) -> str:
    made = f"epoch {answer['epoch']}, made {moment(answer['created_ms'])}"
    reason = f": {plain(answer['reason'])}" if answer["reason"] else ""
    return f"{made}{reason}\n\n{_layout_nodes(answer)}"


def _draft(answer: Answer) -> str:
    stale = " (the layout has changed since: discard and stage again)" if answer["stale"] else ""
    return f"staged on epoch {answer['epoch']}{stale}\n\n{_layout_nodes(answer)}"


def _plan(answer: Answer) -> str:
    rows = [
        [
            row["profile"],
            row["moves"],
            size(row["bytes"]),
            row["empty_slots"],
            row["tolerance_during"],
            row["tolerance_after"],
        ]
        for row in answer["profiles"]
    ]
    headings = ["profile", "slots moved", "bytes", "empty slots", "losses during", "losses after"]
    lines = [
        f"{answer['moves']} slots and about {size(answer['bytes'])} would move on top of epoch "
        f"{answer['epoch']}",
        "",
        table(headings, rows),
    ]
    lines += [f"warning: {plain(text)}" for text in answer["warnings"]]
    lines += [f"would be refused: {plain(text)}" for text in answer["refusals"]]
    if answer["gives_up"]:
        lines.append(f"forced, it gives up {answer['gives_up']} slots on removed nodes")
    return "\n".join(lines)


def _left(answer: Answer) -> str:
    if not answer["groups_left"]:
        return "nothing to move"
    return (
        f"{answer['groups_left']} groups, {size(answer['bytes_left'])} left to move"
        f" at {size(answer['bytes_per_second'])}/s{_eta(answer['eta_seconds'])}"
    )


def _eta(seconds: float | None) -> str:
    return f", {duration(seconds)} to go" if seconds is not None else ""


def _rebalances(answer: Answer) -> str:
    return facts(
        [
            ("epoch", answer["epoch"]),
            ("left", _left(answer)),
            ("groups done", answer["groups_done"]),
            ("copied", size(answer["bytes_moved"])),
            ("rebuilt", size(answer["bytes_rebuilt"])),
            ("read for it", size(answer["bytes_read"])),
        ]
    )


def moves_left(answer: Answer) -> tuple[float, str]:
    """The bar of a rebalance."""
    done = answer["groups_done"]
    every = done + answer["groups_left"]
    return (done / every if every else 1.0), _left(answer)


def slots_left(at_first: int) -> Callable[[Answer], tuple[float, str]]:
    """The bar of a drain that began with so many slots."""

    def text(answer: Answer) -> tuple[float, str]:
        left = answer["slots"]
        share = 1 - left / at_first if at_first else 1.0
        text = f"{left} slots left on {plain(answer['node'])}{_stranded(answer)}"
        return max(0.0, min(1.0, share)), text

    return text


def _repairs(answer: Answer) -> str:
    rows = [
        [
            entry["blob"],
            entry["profile"],
            entry["group"],
            entry["urgency"],
            moment(entry["queued_ms"]),
            entry["attempts"],
            entry["reason"],
        ]
        for entry in answer["entries"]
    ]
    headings = ["blob", "profile", "group", "urgency", "queued", "attempts", "reason"]
    return _listed(table(headings, rows), answer, "nothing waits for repair")


def _listed(text: str, answer: Answer, nothing: str) -> str:
    entries = answer["buckets"] if "buckets" in answer else answer["entries"]
    if not entries:
        return nothing
    return f"{text}\n… and more" if answer["next"] else text


def _uploads(answer: Answer) -> str:
    rows = [
        [
            entry["bucket"],
            entry["key"],
            entry["upload_id"],
            entry["state"],
            duration(entry["age_seconds"]),
            entry["parts"],
            size(entry["bytes"]),
        ]
        for entry in answer["entries"]
    ]
    headings = ["bucket", "key", "upload", "state", "age", "parts", "bytes"]
    return _listed(table(headings, rows), answer, "no upload is open")


def _buckets(answer: Answer) -> str:
    rows = [
        [
            entry["bucket"],
            entry["profile"],
            entry["objects"],
            size(entry["bytes"]),
            entry["uploads"],
            size(entry["pending_bytes"]),
            size(entry["trash_bytes"]),
            moment(entry["created_ms"]),
        ]
        for entry in answer["buckets"]
    ]
    headings = [
        "bucket",
        "profile",
        "objects",
        "bytes",
        "uploads",
        "in uploads",
        "in trash",
        "created",
    ]
    return _listed(table(headings, rows), answer, "there are no buckets")


def _ledger(answer: Answer) -> str:
    def cells(row: Answer) -> list[str]:
        return [f"{row[name]['blobs']} ({size(row[name]['bytes'])})" for name in REDUNDANCIES]

    rows = [[row["bucket"], row["profile"], *cells(row)] for row in answer["rows"]]
    rows.append(["all", "", *cells(answer["total"])])
    lines = [table(["bucket", "profile", *REDUNDANCIES], rows), ""]
    if answer["healed"]:
        lines.append("healed: nothing is known to be less than whole")
    else:
        lines.append(
            f"{answer['groups_degraded']} of {answer['groups']} groups are not whole, "
            f"{answer['groups_moving']} are being moved, {answer['repairs_waiting']} repairs wait"
        )
    if answer["nodes_down"]:
        lines.append(f"down: {plain(', '.join(answer['nodes_down']))}")
    return "\n".join(lines)


def _profiles(answer: Answer) -> str:
    return table(
        ["profile", "scheme", "survives", "groups", "stripe", "domain", "companion"],
        [
            [
                profile["name"],
                profile["scheme"],
                profile["tolerance"],
                profile["pg_count"],
                size(profile["stripe_bytes"]),
                profile["failure_domain"],
                profile["companion"],
            ]
            for profile in answer["profiles"]
        ],
    )


def _scrub(answer: Answer) -> str:
    lines = [
        ("interval", duration(answer["interval_seconds"])),
        (
            "limit",
            f"{size(answer['bytes_per_second'])}/s" if answer["bytes_per_second"] else "none",
        ),
    ]
    for name in ("current", "last"):
        found = answer[name]
        if found is None:
            lines.append((name, "none"))
            continue
        span = f"since {moment(found['started_ms'])}"
        if found["finished_ms"]:
            span = f"{moment(found['started_ms'])} to {moment(found['finished_ms'])}"
        lines.append(
            (
                name,
                f"{span}: {found['groups']} of {answer['groups']} groups, "
                f"{found['shards']} shards, "
                f"{size(found['bytes'])}, {found['damaged']} damaged, {found['missing']} missing, "
                f"{found['unanswered']} not answered",
            )
        )
    return facts(lines)


def _profile_job(answer: Answer) -> str:
    state = f"{answer['state']} ({answer['stage']})" if answer["stage"] else answer["state"]
    return facts(
        [
            ("bucket", answer["bucket"]),
            ("from", ", ".join(answer["sources"])),
            ("to", answer["target"]),
            ("is", state),
            ("moved", f"{answer['blobs_done']} blobs, {size(answer['bytes_done'])}"),
            ("not yet", answer["blobs_left"]),
            ("since", moment(answer["started_ms"])),
            ("ended", moment(answer["ended_ms"])),
            ("note", answer["note"]),
        ]
    )


def profile_progress(answer: Answer) -> tuple[float, str]:
    """The bar of a change of profile: how many blobs there are is known at its end only."""
    done = answer["state"] != "walking"
    moved = f"{answer['blobs_done']} blobs, {size(answer['bytes_done'])} moved"
    return (1.0 if done else 0.0), f"{answer['stage'] or answer['state']}: {moved}"


def _snapshots(answer: Answer) -> str:
    rows = [
        [
            found["incarnation"],
            found["revision"],
            moment(found["created_ms"]),
            found["items"],
            size(found["bytes"]),
        ]
        for found in answer["snapshots"]
    ]
    return table(["incarnation", "revision", "taken", "keys", "bytes"], rows)


def _simulate(answer: Answer) -> str:
    lines = []
    for verdict in answer["verdicts"]:
        lines.append(f"{verdict['decision']}: {verdict['message']}")
        lines += [
            f"  applies: {found['effect']} by {found['statement']} of {found['policy']} "
            f"({found['kind']})"
            for found in verdict["matched"]
        ]
        if verdict["missing"]:
            lines.append(f"  not known: {', '.join(verdict['missing'])} (--context)")
    return "\n".join(map(plain, lines))


def _run(answer: Answer) -> str:
    lines = [("worker", answer["worker"]), ("took", f"{answer['seconds']:.1f} s")]
    return facts([*lines, *answer["report"].items()])


VIEWS: dict[str, Callable[[Answer], str]] = {
    "summary": _summary,
    "health": _health,
    "nodes": _nodes,
    "node": _node,
    "state": _state,
    "fail": _fail,
    "may-stop": _may_stop,
    "layout": _layout,
    "draft": _draft,
    "plan": _plan,
    "applied": lambda answer: f"the layout is at epoch {answer['epoch']}",
    "done": lambda answer: "done",
    "rebalances": _rebalances,
    "repairs": _repairs,
    "uploads": _uploads,
    "buckets": _buckets,
    "ledger": _ledger,
    "profiles": _profiles,
    "tunables": lambda answer: facts(answer.items()),
    "scrub": _scrub,
    "run": _run,
    "simulate": _simulate,
    "bucket-profile": _profile_job,
    "lifecycle": show_lifecycle,
    "snapshots": _snapshots,
    "snapshot": lambda answer: _snapshots({"snapshots": [answer]}),
    "profile": lambda answer: _profiles({"profiles": [answer]}),
    **IDENTITY_VIEWS,
    **UNDO_VIEWS,
    **INVENTORY_VIEWS,
    **ENCRYPTION_VIEWS,
}
