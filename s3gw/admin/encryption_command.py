"""`s3gw admin kms …` and `s3gw admin compression …`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from s3gw.admin.encryption_views import rewrap_progress

if TYPE_CHECKING:
    from s3gw.admin.client import AdminClient

Arguments = argparse.Namespace
Show = Callable[[Arguments, str, Any], int]
Follow = Callable[..., int]

KEYS = "/admin/kms/keys"
MASTER = "/admin/kms/master-keys"


def add_commands(
    action: Callable[..., argparse.ArgumentParser], show: Show, follow: Follow
) -> None:
    """Declare the commands."""
    kms = action(
        "kms",
        lambda client, arguments: _kms(client, arguments, show, follow),
        "keys of server-side encryption",
    )
    steps = kms.add_subparsers(dest="step", metavar="STEP")
    steps.add_parser("list", help="the named keys")
    create = steps.add_parser("create", help="make a named key")
    create.add_argument("name")
    create.add_argument("--description", default="")
    for name, text in (
        ("show", "one named key"),
        ("rotate", "give it a new version; the former ones still open"),
        ("enable", "let it be used again; its deletion is taken back"),
        ("disable", "let it be used no more: what is encrypted with it cannot be read"),
        ("delete", "remove it in some days: what is encrypted with it is lost then"),
    ):
        step = steps.add_parser(name, help=text)
        step.add_argument("name")
        if name == "delete":
            step.add_argument("--days", type=int, default=30, help="7 to 30 (30)")
    steps.add_parser("master-keys", help="the master keys by their ids")
    rewrap = steps.add_parser("rewrap", help="wrap all data keys anew under the newest keys")
    rewrap.add_argument("--watch", action="store_true", help="follow it to its end")
    for step in steps.choices.values():
        step.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    compression = action(
        "compression",
        lambda client, arguments: _compression(client, arguments, show),
        "whether new objects of a bucket are compressed",
    )
    compression.add_argument("bucket")
    compression.add_argument("set", nargs="?", choices=["zstd", "off"], help="change it")


def _kms(client: AdminClient, arguments: Arguments, show: Show, follow: Follow) -> int:
    from s3gw.admin.client import segment

    match arguments.step:
        case None | "list":
            return show(arguments, "kms-keys", client.call("GET", KEYS))
        case "create":
            body = {"name": arguments.name, "description": arguments.description}
            return show(arguments, "kms-key", client.call("POST", KEYS, body))
        case "show":
            path = f"{KEYS}/{segment(arguments.name)}"
            return show(arguments, "kms-key", client.call("GET", path))
        case "master-keys":
            return show(arguments, "master-keys", client.call("GET", MASTER))
        case "rewrap":
            return _rewrap(client, arguments, show, follow)
        case step:
            path = f"{KEYS}/{segment(arguments.name)}/{step}"
            days = {"days": arguments.days} if step == "delete" else None
            return show(arguments, "kms-key", client.call("POST", path, days))


def _rewrap(client: AdminClient, arguments: Arguments, show: Show, follow: Follow) -> int:
    answer = client.call("POST", "/admin/kms/rewrap")
    if not arguments.watch:
        return show(arguments, "rewrap", answer)
    return follow(
        arguments,
        "rewrap",
        lambda: client.call("GET", MASTER)["rewrap"],
        lambda state: state["state"] != "walking",
        rewrap_progress,
    )


def _compression(client: AdminClient, arguments: Arguments, show: Show) -> int:
    from s3gw.admin.client import segment

    path = f"/admin/buckets/{segment(arguments.bucket)}/compression"
    if arguments.set is None:
        return show(arguments, "compression", client.call("GET", path))
    body = {"compression": "" if arguments.set == "off" else arguments.set}
    return show(arguments, "compression", client.call("PUT", path, body))
