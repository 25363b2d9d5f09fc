"""`s3gw admin inventories` and `inventory`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from s3gw.admin.terminal import facts, moment, table

if TYPE_CHECKING:
    from s3gw.admin.client import AdminClient

Arguments = argparse.Namespace
Show = Callable[[Arguments, str, Any], int]
Answer = Mapping[str, Any]


def add_commands(action: Callable[..., argparse.ArgumentParser], show: Show) -> None:
    """Add both commands. `show` presents answers."""
    action(
        "inventories",
        lambda client, arguments: show(
            arguments, "inventories", client.call("GET", "/admin/inventories")
        ),
        "inventory configurations of all buckets, and how their last reports went",
    )
    one = action(
        "inventory",
        lambda client, arguments: _inventory(client, arguments, show),
        "one inventory configuration; have its report made now",
    )
    one.add_argument("bucket")
    one.add_argument("id")
    one.add_argument("step", nargs="?", choices=["run"], help="have a report made")


def _inventory(client: AdminClient, arguments: Arguments, show: Show) -> int:
    from s3gw.admin.client import segment

    path = f"/admin/inventories/{segment(arguments.bucket)}/{segment(arguments.id)}"
    if arguments.step == "run":
        return show(arguments, "inventory", client.call("POST", f"{path}/run"))
    return show(arguments, "inventory", client.call("GET", path))


def _moment(ms: int) -> str:
    return moment(ms) if ms > 0 else "never"


def show_inventories(answer: Answer) -> str:
    """A line for each."""
    rows = [
        [
            each["bucket"],
            each["id"],
            each["state"],
            each["rows"],
            _moment(each["done_ms"]),
            _moment(each["next_ms"]),
        ]
        for each in answer["inventories"]
    ]
    if not rows:
        return "no bucket has an inventory"
    shown = table(["bucket", "id", "state", "rows", "last done", "next"], rows)
    return f"{shown}\n…and more" if answer["more"] else shown


def show_inventory(answer: Answer) -> str:
    """All that is known of one."""
    pairs: list[tuple[str, Any]] = [
        ("bucket", answer["bucket"]),
        ("id", answer["id"]),
        ("enabled", answer["enabled"]),
        ("frequency", answer["frequency"]),
        ("format", answer["format"]),
        ("destination", answer["destination"]),
        ("state", answer["state"]),
        ("started", _moment(answer["started_ms"])),
        ("rows", answer["rows"]),
        ("files", answer["files"]),
        ("next", _moment(answer["next_ms"])),
        ("last done", _moment(answer["done_ms"])),
        ("manifest", answer["manifest"] or "none"),
    ]
    if answer["note"]:
        pairs.append(("note", answer["note"]))
    return facts(pairs)


INVENTORY_VIEWS: dict[str, Callable[[Answer], str]] = {
    "inventories": show_inventories,
    "inventory": show_inventory,
}
