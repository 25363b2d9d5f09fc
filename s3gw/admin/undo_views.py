"""The answers about trash and undo as text for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3gw.admin.terminal import duration, facts, moment, plain, size, table

Answer = Mapping[str, Any]


def _trash(answer: Answer) -> str:
    kept = duration(answer["keep_seconds"]) if answer["keep_seconds"] else "not at all"
    return facts(
        [
            ("bucket", answer["bucket"]),
            ("keeps", kept),
            ("in the trash", f"{answer['objects']} objects, {size(answer['bytes'])}"),
        ]
    )


def _entries(answer: Answer) -> str:
    if not answer["entries"]:
        return "nothing is in the trash"
    rows = [
        [
            entry["key"],
            entry["entry"],
            size(entry["size"]),
            moment(entry["modified_ms"]),
            moment(entry["trashed_ms"]),
            moment(entry["purge_ms"]),
        ]
        for entry in answer["entries"]
    ]
    text = table(["key", "entry", "size", "modified", "deleted", "kept until"], rows)
    return f"{text}\n… and more" if answer["next"] else text


def _restored(answer: Answer) -> str:
    left = f"; {answer['occupied']} left, where there is an object" if answer["occupied"] else ""
    missing = f"; {answer['missing']} not in the trash" if answer["missing"] else ""
    return f"{answer['restored']} restored{left}{missing}"


def _emptied(answer: Answer) -> str:
    return f"{answer['objects']} objects removed for good, {size(answer['bytes'])}"


def _plan(answer: Answer) -> str:
    return (
        f"of {answer['keys']} keys {answer['restore']} would get back an older version and "
        f"{answer['hide']} a delete marker"
    )


def _undo(answer: Answer) -> str:
    return facts(
        [
            ("bucket", answer["bucket"]),
            ("prefix", plain(answer["prefix"]) or "(all)"),
            ("back to", moment(answer["at_ms"])),
            ("is", answer["state"]),
            ("keys", answer["keys"]),
            ("restored", answer["restored"]),
            ("hidden", answer["hidden"]),
            ("left", answer["left"]),
            ("since", moment(answer["started_ms"])),
            ("ended", moment(answer["ended_ms"])),
            ("note", answer["note"]),
        ]
    )


def undo_progress(answer: Answer) -> tuple[float, str]:
    """The bar of an undo: how many keys there are is known at its end only."""
    done = answer["state"] != "walking"
    text = f"{answer['keys']} keys, {answer['restored']} restored, {answer['hidden']} hidden"
    return (1.0 if done else 0.0), text


UNDO_VIEWS: dict[str, Callable[[Answer], str]] = {
    "trash": _trash,
    "trash-list": _entries,
    "trash-restore": _restored,
    "trash-empty": _emptied,
    "undo": _undo,
    "undo-plan": _plan,
}
