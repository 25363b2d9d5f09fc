"""The answers about encryption keys and compression as text for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3gw.admin.terminal import facts, moment, plain, table

Answer = Mapping[str, Any]


def _keys(answer: Answer) -> str:
    if not answer["keys"]:
        return "there are no named keys"
    rows = [
        [
            key["name"],
            key["state"],
            key["versions"],
            moment(key["created_ms"]),
            moment(key["delete_after_ms"]) if key["delete_after_ms"] else "",
            plain(key["description"]),
        ]
        for key in answer["keys"]
    ]
    return table(["key", "is", "versions", "made", "removed", "description"], rows)


def _key(answer: Answer) -> str:
    return facts(
        [
            ("key", answer["name"]),
            ("ARN", answer["arn"]),
            ("is", answer["state"]),
            ("versions", answer["versions"]),
            ("made", moment(answer["created_ms"])),
            ("removed", moment(answer["delete_after_ms"]) if answer["delete_after_ms"] else ""),
            ("description", plain(answer["description"])),
        ]
    )


def _master_keys(answer: Answer) -> str:
    shown = facts(
        [
            ("present", answer["present"] or "none"),
            ("configured", " ".join(answer["configured"])),
            ("in use", " ".join(answer["in_use"]) or "none"),
            ("may be removed", " ".join(answer["removable"]) or "none"),
        ]
    )
    behind = [process for process in answer["processes"] if process["behind"]]
    if behind:
        rows = [
            [plain(each["name"]), each["present"] or "none", " ".join(each["configured"][1:])]
            for each in behind
        ]
        told = table(["to be started again", "present", "others"], rows)
        shown = f"{shown}\n\n{told}"
    return f"{shown}\n\n{_rewrap(answer['rewrap'])}" if answer["rewrap"] else shown


def _rewrap(answer: Answer) -> str:
    return facts(
        [
            ("wrapping anew", _state(answer)),
            ("looked at", answer["walked"]),
            ("wrapped anew", answer["rewrapped"]),
            ("failed", answer["failed"]),
            ("left", answer["kept"]),
            ("since", moment(answer["started_ms"])),
            ("ended", moment(answer["ended_ms"]) if answer["ended_ms"] else ""),
            ("note", plain(answer["note"])),
        ]
    )


def _state(answer: Answer) -> str:
    return "proving" if answer["proving"] and answer["state"] == "walking" else answer["state"]


def rewrap_progress(answer: Answer) -> tuple[float, str]:
    """The bar of the job: how many records there are is known at its end only."""
    done = answer["state"] != "walking"
    text = f"{answer['walked']} looked at, {answer['rewrapped']} wrapped anew"
    if answer["note"]:
        text += f"; {plain(answer['note'])}"
    return (1.0 if done else 0.0), text


def _compression(answer: Answer) -> str:
    kind = answer["compression"]
    how = f"compressed: {kind}" if kind else "stored as they are"
    return f"new objects of {answer['bucket']} are {how}"


ENCRYPTION_VIEWS: dict[str, Callable[[Answer], str]] = {
    "kms-keys": _keys,
    "kms-key": _key,
    "master-keys": _master_keys,
    "rewrap": _rewrap,
    "compression": _compression,
}
