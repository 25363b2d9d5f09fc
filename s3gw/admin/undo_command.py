"""`s3gw admin trash …` and `s3gw admin undo …`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from s3gw.admin.undo_views import undo_progress

if TYPE_CHECKING:
    from s3gw.admin.client import AdminClient

Arguments = argparse.Namespace
Show = Callable[[Arguments, str, Any], int]
Follow = Callable[..., int]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PAGE = 1000


def seconds(text: str) -> int:
    """A duration: `90`, `90s`, `15m`, `12h`, `30d`."""
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    if not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 12h or 30d")
    return int(number) * unit


def at_ms(text: str) -> int:
    """A moment: ISO 8601 with its offset from UTC, or a duration before now as `15m-ago`."""
    if text.endswith("-ago"):
        return int(time.time() - seconds(text.removesuffix("-ago"))) * 1000
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a moment such as 2026-05-24T10:00:00Z or 15m-ago"
        )
    return round(when.timestamp() * 1000)


def add_commands(
    action: Callable[..., argparse.ArgumentParser], show: Show, follow: Follow
) -> None:
    """Add both commands. `show` and `follow` present answers."""
    trash = action(
        "trash",
        lambda client, arguments: _trash(client, arguments, show),
        "what a bucket without versioning keeps of what is deleted",
    )
    trash.add_argument("bucket")
    trash.add_argument("step", nargs="?", choices=["set", "list", "restore", "empty"])
    trash.add_argument("keep", nargs="?", type=seconds, help="of `set`: 12h, 30d; 0: nothing")
    trash.add_argument("--key", help="of `restore`: one key")
    trash.add_argument("--entry", default="", help="of --key: which of its entries (the last)")
    trash.add_argument("--prefix", help="of `list`, `restore` and `empty`")
    trash.add_argument("--replace", action="store_true", help="restore over what is there")
    trash.add_argument("--limit", type=int, default=PAGE, help=f"of `list` ({PAGE})")
    trash.add_argument("--yes", action="store_true", help="`empty` everything")
    undo = action(
        "undo",
        lambda client, arguments: _undo(client, arguments, show, follow),
        "let a prefix of a bucket with versioning show what it showed at a moment",
    )
    undo.add_argument("bucket")
    undo.add_argument("--to", type=at_ms, help="the moment; without: how far the last undo is")
    undo.add_argument("--prefix", default="", help="of keys (all)")
    undo.add_argument("--plan", action="store_true", help="only say what would be done")
    undo.add_argument("--cancel", action="store_true", help="stop the one that goes on")
    undo.add_argument("--watch", action="store_true", help="follow it to its end")


def _path(*segments: str) -> str:
    from s3gw.admin.client import segment

    return "/admin/buckets/" + "/".join(map(segment, segments))


def _trash(client: AdminClient, arguments: Arguments, show: Show) -> int:
    from s3gw.admin.command import Usage

    bucket = arguments.bucket
    match arguments.step:
        case None:
            return show(arguments, "trash", client.call("GET", _path(bucket, "trash")))
        case "set":
            if arguments.keep is None:
                raise Usage("trash BUCKET set DURATION, such as 12h or 30d; 0 keeps nothing")
            body = {"keep_seconds": arguments.keep}
            return show(arguments, "trash", client.call("PUT", _path(bucket, "trash"), body))
        case "list":
            return show(arguments, "trash-list", _listed(client, arguments))
        case "restore":
            return show(arguments, "trash-restore", _restored(client, arguments))
        case _:
            if arguments.prefix is None and not arguments.yes:
                raise Usage("nothing was removed: name a --prefix, or say --yes for everything")
            return show(arguments, "trash-empty", _emptied(client, arguments))


def _listed(client: AdminClient, arguments: Arguments) -> dict[str, Any]:
    entries: list[Any] = []
    query: dict[str, Any] = {"prefix": arguments.prefix or ""}
    following = ""
    while len(entries) < arguments.limit:
        query["limit"] = min(PAGE, arguments.limit - len(entries))
        answer = client.call("GET", _path(arguments.bucket, "trash", "entries"), query=query)
        entries += answer["entries"]
        following = answer["next"]
        if not following:
            break
        query["after"] = following
    return {"entries": entries, "next": following}


def _restored(client: AdminClient, arguments: Arguments) -> dict[str, Any]:
    from s3gw.admin.command import Usage

    if (arguments.key is None) == (arguments.prefix is None):
        raise Usage("name a --key or a --prefix")
    path = _path(arguments.bucket, "trash", "restore")
    body: dict[str, Any] = {"replace": arguments.replace}
    if arguments.key is not None:
        return dict(
            client.call("POST", path, {**body, "key": arguments.key, "entry": arguments.entry})
        )
    body["prefix"] = arguments.prefix
    return _pages(client, path, body, ("restored", "occupied", "missing"))


def _pages(
    client: AdminClient, path: str, body: dict[str, Any], figures: tuple[str, ...]
) -> dict[str, Any]:
    """The sums of a call's pages."""
    whole: dict[str, Any] = dict.fromkeys(figures, 0)
    while True:
        answer = client.call("POST", path, body)
        for name in figures:
            whole[name] += answer[name]
        if not answer["next"]:
            return {**whole, "next": ""}
        body["after"] = answer["next"]


def _emptied(client: AdminClient, arguments: Arguments) -> dict[str, Any]:
    path = _path(arguments.bucket, "trash", "empty")
    whole = {"objects": 0, "bytes": 0, "lost": 0, "more": False}
    while True:
        answer = client.call("POST", path, {"prefix": arguments.prefix or ""})
        for name in ("objects", "bytes", "lost"):
            whole[name] += answer[name]
        if not answer["more"]:
            return whole


def _undo(client: AdminClient, arguments: Arguments, show: Show, follow: Follow) -> int:
    path = _path(arguments.bucket, "undo")
    if arguments.cancel:
        return show(arguments, "undo", client.call("DELETE", path))
    if arguments.to is None:
        answer = client.call("GET", path)
    else:
        body = {"prefix": arguments.prefix, "at_ms": arguments.to}
        if arguments.plan:
            figures = ("keys", "restore", "hide", "left")
            plan = _pages(client, _path(arguments.bucket, "undo", "plan"), body, figures)
            return show(arguments, "undo-plan", plan)
        answer = client.call("POST", path, body)
    if not arguments.watch:
        return show(arguments, "undo", answer)
    return follow(
        arguments,
        "undo",
        lambda: client.call("GET", path),
        lambda state: state["state"] != "walking",
        undo_progress,
    )
