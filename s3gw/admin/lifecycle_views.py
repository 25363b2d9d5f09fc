"""How the work of lifecycle rules goes, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3gw.admin.terminal import facts, moment, table


def show_lifecycle(answer: Mapping[str, Any]) -> str:
    """The queue, the walks, and the last run."""
    due = f"{answer['due']}, since {moment(answer['first_ms'])}" if answer["due"] else "0"
    lines = [
        facts(
            [
                ("queued", f"{'more than ' if answer['more'] else ''}{answer['queued']}"),
                ("due now", due),
                ("next due", moment(answer["next_ms"])),
                ("a day lasts", f"{answer['day_seconds']:g} s"),
            ]
        )
    ]
    if answer["walks"]:
        rows = [
            [walk["bucket"], walk["stage"] or "to begin", walk["seen"], walk["queued"]]
            for walk in answer["walks"]
        ]
        lines += ["", table(["bucket", "walk", "seen", "queued"], rows)]
    last = answer["last"]
    if last is not None:
        figures = [(name, value) for name, value in last.items() if not name.endswith("_ms")]
        lines += ["", f"the last run, {moment(last['started_ms'])}", facts(figures)]
    return "\n".join(lines)
