"""`s3gw admin …`: the admin API on the command line.

Each command is a call and a way to show its answer; `--json` shows the answer itself. The exit
code is 0 when it was done, 1 when the store refused or says no, 2 for a command that makes no sense
and a port that does not answer. Errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3gw.admin import views
from s3gw.admin.encryption_command import add_commands as add_encryption_commands
from s3gw.admin.identity_command import add_commands as add_identity_commands
from s3gw.admin.inventory_command import add_commands as add_inventory_commands
from s3gw.admin.terminal import Bar
from s3gw.admin.undo_command import add_commands as add_undo_commands

if TYPE_CHECKING:
    from s3gw.admin.client import AdminClient

DONE, FAILED, USAGE = 0, 1, 2
CREDENTIALS_FILE = "credentials.json"
WATCH_SECONDS = 1.0
LOST_MAX = 10
PAGE = 1000
UPLOADS_PAGE = 200

Arguments = argparse.Namespace
Sleep = Callable[[float], None]


class Usage(Exception):
    """The command cannot be sent as it is."""


def add_arguments(root: argparse.ArgumentParser) -> None:
    """Declare the commands of `admin`; each sets `run`."""
    root.set_defaults(run=run)
    root.add_argument("--endpoint", help="the admin port (S3GW_ADMIN, or 127.0.0.1:9001)")
    root.add_argument("--access-key", help="access key of root or a user (S3GW_ROOT_ACCESS_KEY)")
    root.add_argument("--secret-key", help="its secret key; better S3GW_ROOT_SECRET_KEY")
    root.add_argument("--region", help="the store's region (S3GW_REGION, or us-east-1)")
    root.add_argument("--ca", help="file of authorities that its certificate is checked by")
    root.add_argument("--data", default="./data", help="where `up` keeps root's keys (./data)")
    root.add_argument("--json", action="store_true", help="print the answer as JSON")
    actions = root.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def action(name: str, do: Callable[..., int], text: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=text, description=text)
        # Also behind the command, where it is mostly typed; not to undo one before it.
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        parser.set_defaults(do=do)
        return parser

    for name, (path, text) in READS.items():
        action(name, _read, text).set_defaults(path=path)
    for name, (path, text) in LISTS.items():
        listing = action(name, _list, text)
        listing.set_defaults(path=path)
        listing.add_argument("--limit", type=_count, default=PAGE, help=f"entries ({PAGE})")
    _add_nodes(action)
    _add_layout(action)
    moves = action("rebalances", _rebalances, "what is left to move, and when it will be done")
    moves.add_argument("--watch", action="store_true", help="follow it until nothing is left")
    tunables = action("tunables", _tunables, "settings that are changed while the store runs")
    tunables.add_argument("set", nargs="?", choices=["set"], help="change some")
    tunables.add_argument("values", nargs="*", metavar="NAME=VALUE")
    profiles = action("profiles", _profiles, "profiles, and what each survives")
    profiles.add_argument("create", nargs="?", choices=["create"], help="make one")
    profiles.add_argument("name", nargs="?")
    profiles.add_argument("scheme", nargs="?", help="as in 8+3, 1+2 (copies), 8+4/2")
    profiles.add_argument("--failure-domain", choices=["drive", "node", "zone"], default="node")
    profiles.add_argument("--groups", type=_count, default=0, help="placement groups (enough)")
    profiles.add_argument("--storage-class", action="append", default=[], help="to be kept in it")
    bucket = action("bucket-profile", _bucket_profile, "change a bucket's profile while it is used")
    bucket.add_argument("bucket")
    bucket.add_argument("profile", nargs="?", help="without: how far the last change has come")
    bucket.add_argument("--cancel", action="store_true", help="stop moving")
    bucket.add_argument("--watch", action="store_true", help="follow it to its end")
    snapshots = action("snapshots", _snapshots, "snapshots of the metadata that the nodes keep")
    snapshots.add_argument("take", nargs="?", choices=["take"], help="take one now")
    add_identity_commands(action, _show, _add_policy(action))
    add_undo_commands(action, _show, _follow)
    add_encryption_commands(action, _show, _follow)
    add_inventory_commands(action, _show)
    worker = action("run", _run_worker, "run a background worker to its end now")
    worker.add_argument("worker", help="garbage, repair, verify, merge, trash or lifecycle")


# Commands that show one answer, and those that show pages.
READS: dict[str, tuple[str, str]] = {
    "summary": ("/admin/summary", "the store at a glance"),
    "nodes": ("/admin/nodes", "all nodes"),
    "ledger": ("/admin/ledger", "blobs and bytes by redundancy"),
    "scrub": ("/admin/scrub", "how far the verification of all shards has come"),
    "lifecycle": ("/admin/lifecycle", "what lifecycle rules have to do, and did last"),
    "health": ("/health", "the health score and its reasons"),
}
LISTS: dict[str, tuple[str, str]] = {
    "repairs": ("/admin/repairs", "blobs that wait for repair"),
    "uploads": ("/admin/uploads", "open multipart uploads"),
    "buckets": ("/admin/buckets", "buckets and what is in them"),
}


def _add_nodes(action: Callable[..., argparse.ArgumentParser]) -> None:
    node = action("node", _node, "show a node, or change its state")
    node.add_argument("node")
    node.add_argument(
        "change",
        nargs="?",
        choices=["cordon", "uncordon", "drain", "decommission", "activate", "fail", "unfail"],
    )
    node.add_argument("--seconds", type=_count, default=60, help="of `fail` (60)")
    node.add_argument("--force", action="store_true", help="`fail` also what writes need")
    node.add_argument("--watch", action="store_true", help="drain, decommission: until it is done")
    stop = action("may-stop", _may_stop, "may this node be stopped now? (exit code 1: no)")
    stop.add_argument("node")


def _add_layout(action: Callable[..., argparse.ArgumentParser]) -> None:
    layout = action("layout", _layout, "the layout; stage, preview and apply changes")
    steps = layout.add_subparsers(dest="step", metavar="STEP")
    steps.add_parser("show", help="the layout as it is")
    steps.add_parser("draft", help="the staged changes")
    steps.add_parser("plan", help="what the staged changes would move and risk")
    steps.add_parser("discard", help="forget the staged changes")
    apply = steps.add_parser("apply", help="make the staged changes the next layout")
    apply.add_argument("--reason", default="")
    apply.add_argument("--force", action="store_true", help="give up what removed nodes hold")
    apply.add_argument("--yes", action="store_true", help="--force without being asked")
    stage = steps.add_parser("stage", help="stage a change")
    changes = stage.add_subparsers(dest="change", required=True, metavar="CHANGE")
    add = changes.add_parser("add", help="a registered node")
    add.add_argument("node")
    add.add_argument("--zone", default="")
    add.add_argument("--weight", type=_count, default=0, help="bytes (the drive's capacity)")
    add.add_argument("--host", default="")
    changes.add_parser("remove", help="an empty node").add_argument("node")
    for name, kind in (("state", str), ("weight", _count), ("zone", str)):
        change = changes.add_parser(name, help=f"set a node's {name}")
        change.add_argument("node")
        change.add_argument(name, type=kind)
    for step in (*steps.choices.values(), *changes.choices.values()):
        step.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def _add_policy(action: Callable[..., argparse.ArgumentParser]) -> Any:
    """Add `policy`; its steps, for others to add to."""
    policy = action("policy", _simulate, "managed policies, and what all policies decide")
    steps = policy.add_subparsers(dest="step", required=True, metavar="STEP")
    simulate = steps.add_parser(
        "simulate", help="what would be decided, and by which statement (exit code 1: denied)"
    )
    simulate.add_argument("--principal", default="", help="anonymous, or the ARN of who asks")
    simulate.add_argument(
        "--policy", action="append", default=[], metavar="FILE", help="a policy that it has"
    )
    simulate.add_argument("--action", action="append", required=True, dest="actions")
    simulate.add_argument("--resource", action="append", required=True, dest="resources")
    simulate.add_argument(
        "--context", action="append", default=[], metavar="KEY=VALUE", help="a condition key"
    )
    simulate.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    return steps


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def run(arguments: Arguments) -> int:
    """Run a command; the exit code."""
    from s3gw.admin.client import Refused, Unreachable  # httpx: only when it is needed

    try:
        client = open_client(arguments)
        try:
            return int(arguments.do(client, arguments))
        finally:
            client.close()
    except Refused as error:
        return _complain(error, FAILED)
    except (Unreachable, Usage) as error:
        return _complain(error, USAGE)
    except BrokenPipeError:
        # Who reads has gone (`| head`); nothing is to be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130


def _complain(error: Exception, code: int) -> int:
    print(f"s3gw: {views.plain(error)}", file=sys.stderr)
    return code


def open_client(arguments: Arguments, environment: Mapping[str, str] = os.environ) -> AdminClient:
    """The client for flags, environment, or the keys that `up` keeps. Raises Usage, Unreachable."""
    from s3gw.admin.client import AdminClient

    access = arguments.access_key or environment.get("S3GW_ROOT_ACCESS_KEY", "")
    secret = arguments.secret_key or environment.get("S3GW_ROOT_SECRET_KEY", "")
    if not access and not secret:
        access, secret = _kept_keys(Path(arguments.data) / CREDENTIALS_FILE)
    if not access or not secret:
        raise Usage("access key and secret key must be given together")
    return AdminClient(
        arguments.endpoint or environment.get("S3GW_ADMIN", "127.0.0.1:9001"),
        access,
        secret,
        arguments.region or environment.get("S3GW_REGION", "us-east-1"),
        ca=arguments.ca or environment.get("S3GW_ADMIN_CA", ""),
    )


def _kept_keys(path: Path) -> tuple[str, str]:
    try:
        kept = json.loads(path.read_bytes())
        return str(kept["access_key"]), str(kept["secret_key"])
    except FileNotFoundError:
        raise Usage(
            "root's keys are needed: set S3GW_ROOT_ACCESS_KEY and S3GW_ROOT_SECRET_KEY, or name "
            "the data directory of `up` with --data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Usage(f"{path} cannot be read: {error}") from error


def _show(arguments: Arguments, name: str, answer: Any) -> int:
    if arguments.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print(views.VIEWS[name](answer))
    return DONE


def _path(*segments: str) -> str:
    from s3gw.admin.client import segment

    return "/admin/" + "/".join(map(segment, segments))


def _read(client: AdminClient, arguments: Arguments) -> int:
    return _show(arguments, arguments.action, client.call("GET", arguments.path))


def _list(client: AdminClient, arguments: Arguments) -> int:
    """Pages until there are `limit` entries, or all."""
    name = "buckets" if arguments.action == "buckets" else "entries"
    most = UPLOADS_PAGE if arguments.action == "uploads" else PAGE
    entries: list[Any] = []
    query: dict[str, Any] = {}
    following = ""
    while len(entries) < arguments.limit:
        query["limit"] = min(most, arguments.limit - len(entries))
        answer = client.call("GET", arguments.path, query=query)
        entries += answer[name]
        following = answer["next"]
        if not following:
            break
        query["after"] = following
    return _show(arguments, arguments.action, {name: entries, "next": following})


def _node(client: AdminClient, arguments: Arguments) -> int:
    if arguments.change is None:
        return _show(arguments, "node", client.call("GET", _path("nodes", arguments.node)))
    path = _path("nodes", arguments.node, arguments.change)
    if arguments.change == "fail":
        body = {"seconds": arguments.seconds, "force": arguments.force}
        return _show(arguments, "fail", client.call("POST", path, body))
    if arguments.change == "unfail":
        path = _path("nodes", arguments.node, "fail")
        return _show(arguments, "fail", client.call("DELETE", path))
    answer = client.call("POST", path)
    watched = arguments.watch and arguments.change in ("drain", "decommission")
    if not watched or answer["done"]:  # a node that is gone cannot be asked again
        return _show(arguments, "state", answer)
    return _follow(
        arguments,
        "state",
        lambda: _leaving(client, arguments.node, path),
        lambda state: bool(state["done"]),
        views.slots_left(answer["slots"]),
    )


def _leaving(client: AdminClient, node: str, path: str) -> Any:
    """How far a drain or decommission is. What is asked for beside reading is on record each time:
    so it is read, until nothing is left, and then asked for again, which ends it. Raises Usage when
    somebody has taken it back."""
    seen = client.call("GET", _path("nodes", node))
    if seen["state"] not in ("draining", "out"):
        raise Usage(f"{node} is {seen['state'] or 'not in the layout'} again: nothing leaves it")
    return {**seen, "done": False} if seen["slots"] else client.call("POST", path)


def _may_stop(client: AdminClient, arguments: Arguments) -> int:
    answer = client.call("GET", _path("nodes", arguments.node, "may-stop"))
    _show(arguments, "may-stop", answer)
    return DONE if answer["may_stop"] else FAILED


def _layout(client: AdminClient, arguments: Arguments) -> int:
    match arguments.step:
        case "draft":
            return _show(arguments, "draft", client.call("GET", "/admin/layout/draft"))
        case "plan":
            return _show(arguments, "plan", client.call("GET", "/admin/layout/plan"))
        case "discard":
            return _show(arguments, "done", client.call("DELETE", "/admin/layout/draft"))
        case "apply":
            body = {"reason": arguments.reason, **_forced(client, arguments)}
            return _show(arguments, "applied", client.call("POST", "/admin/layout/apply", body))
        case "stage":
            change = {
                name: value
                for name, value in vars(arguments).items()
                if name in ("change", "node", "zone", "weight", "host", "state")
            }
            body = {"changes": [change]}
            return _show(arguments, "draft", client.call("POST", "/admin/layout/draft", body))
        case _:
            return _show(arguments, "layout", client.call("GET", "/admin/layout"))


def _forced(client: AdminClient, arguments: Arguments) -> dict[str, Any]:
    """What `apply --force` sends beside: the plan that was looked at, which somebody must have
    agreed to. Raises Usage."""
    if not arguments.force:
        return {}
    plan = client.call("GET", "/admin/layout/plan")
    if plan["refusals"] and not arguments.yes:
        print(views.VIEWS["plan"](plan), file=sys.stderr)
        if not sys.stdin.isatty():
            raise Usage("nothing was applied: --force wants --yes where nobody can be asked")
        print("Type yes to apply it all the same: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != "yes":
            raise Usage("nothing was applied")
    looked_at = {"epoch": plan["epoch"], "draft": plan["draft"]}
    return {**looked_at, "force": True, "confirm": plan["gives_up"]}


def _rebalances(client: AdminClient, arguments: Arguments) -> int:
    def ask() -> Any:
        return client.call("GET", "/admin/rebalances")

    if not arguments.watch:
        return _show(arguments, "rebalances", ask())
    return _follow(
        arguments, "rebalances", ask, lambda state: not state["groups_left"], views.moves_left
    )


def _follow(
    arguments: Arguments,
    name: str,
    ask: Callable[[], Any],
    done: Callable[[Any], bool],
    text: Callable[[Mapping[str, Any]], tuple[float, str]],
    sleep: Sleep = time.sleep,
) -> int:
    """Ask until it is done, and draw a bar meanwhile. A gateway that does not answer for a moment
    (it is being restarted) is asked again."""
    from s3gw.admin.client import Unreachable

    bar = Bar(sys.stderr, text)
    lost = 0
    try:
        while True:
            try:
                state = ask()
                lost = 0
            except Unreachable:
                lost += 1
                if lost > LOST_MAX:
                    raise
            else:
                if not arguments.json:
                    bar.show(state)
                if done(state):
                    break
            sleep(WATCH_SECONDS)
    finally:
        bar.end()
    return _show(arguments, name, state)


def _tunables(client: AdminClient, arguments: Arguments) -> int:
    if not arguments.set:
        return _show(arguments, "tunables", client.call("GET", "/admin/tunables"))
    values: dict[str, float] = {}
    for pair in arguments.values:
        name, equals, text = pair.partition("=")
        try:
            values[name] = int(text) if text.lstrip("-").isdigit() else float(text)
        except ValueError:
            raise Usage(f"{pair!r} is not NAME=NUMBER") from None
        if not equals:
            raise Usage(f"{pair!r} is not NAME=NUMBER")
    if not values:
        raise Usage("name what to set: NAME=VALUE …")
    return _show(arguments, "tunables", client.call("PUT", "/admin/tunables", values))


def _profiles(client: AdminClient, arguments: Arguments) -> int:
    if not arguments.create:
        return _show(arguments, "profiles", client.call("GET", "/admin/profiles"))
    if not arguments.name or not arguments.scheme:
        raise Usage("profiles create NAME SCHEME")
    body = {
        "name": arguments.name,
        "scheme": arguments.scheme,
        "failure_domain": arguments.failure_domain,
        "pg_count": arguments.groups,
        "storage_classes": arguments.storage_class,
    }
    return _show(arguments, "profile", client.call("POST", "/admin/profiles", body))


def _bucket_profile(client: AdminClient, arguments: Arguments) -> int:
    path = _path("buckets", arguments.bucket, "profile")
    if arguments.cancel:
        return _show(arguments, "bucket-profile", client.call("DELETE", path))
    if arguments.profile:
        answer = client.call("POST", path, {"profile": arguments.profile})
    else:
        answer = client.call("GET", path)
    if not arguments.watch:
        return _show(arguments, "bucket-profile", answer)
    return _follow(
        arguments,
        "bucket-profile",
        lambda: client.call("GET", path),
        lambda state: state["state"] != "walking",
        views.profile_progress,
    )


def _snapshots(client: AdminClient, arguments: Arguments) -> int:
    from s3gw.admin.client import RUN_SECONDS

    if not arguments.take:
        return _show(arguments, "snapshots", client.call("GET", "/admin/snapshots"))
    return _show(
        arguments, "snapshot", client.call("POST", "/admin/snapshots", seconds=RUN_SECONDS)
    )


def _simulate(client: AdminClient, arguments: Arguments) -> int:
    context: dict[str, list[str]] = {}
    for pair in arguments.context:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Usage(f"{pair!r} is not KEY=VALUE")
        context.setdefault(name, []).append(value)
    body = {
        "principal": arguments.principal,
        "policies": [_document(Path(name)) for name in arguments.policy],
        "actions": arguments.actions,
        "resources": arguments.resources,
        "context": context,
    }
    answer = client.call("POST", "/admin/policy/simulate", body)
    _show(arguments, "simulate", answer)
    allowed = all(verdict["decision"] == "allowed" for verdict in answer["verdicts"])
    return DONE if allowed else FAILED


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Usage(f"{path} cannot be read as JSON: {error}") from error


def _run_worker(client: AdminClient, arguments: Arguments) -> int:
    from s3gw.admin.client import RUN_SECONDS

    path = _path("run", arguments.worker)
    return _show(arguments, "run", client.call("POST", path, seconds=RUN_SECONDS))
