"""`s3gw admin user|group|key|policy|role …`: a table of steps, each one call of the admin API."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3gw.admin.undo_command import seconds

if TYPE_CHECKING:
    from s3gw.admin.client import AdminClient

Arguments = argparse.Namespace
Show = Callable[[Arguments, str, Any], int]
Steps = Any  # argparse's own type of subparsers is private
PAGE = 1000


def file_text(name: str) -> str:
    """The text of a file; `-` is standard input."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be read: {error}") from error


def tag(text: str) -> tuple[str, str]:
    """`KEY=VALUE`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


@dataclass(frozen=True, slots=True)
class Option:
    """An argument beside the names in the path. `kind` makes its value of the text."""

    flag: str
    help: str
    kind: Callable[[str], Any] | None = str
    default: Any = None
    many: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `path` names, in braces, the arguments that are parts of it, in the order in which
    they are typed; `body` makes the request's body, `query` its query. `view` shows the answer."""

    name: str
    help: str
    method: str
    path: str
    view: str
    further: tuple[Option, ...] = ()
    body: Callable[[Arguments], dict[str, Any]] | None = None
    query: Callable[[Arguments], dict[str, Any]] | None = None

    @property
    def names(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


FORCE = Option("--force", "with its keys and policies", None, False)
PATH = Option("--path", "IAM path (/)", default="/")
POLICY = Option("policy", "name or ARN of a managed policy")
DOCUMENT = Option("document", "file with the policy, - for standard input", file_text)
DESCRIPTION = Option("--description", "for people")


def _forced(arguments: Arguments) -> dict[str, Any]:
    return {"force": "true"} if arguments.force else {}


def _status(status: str) -> Callable[[Arguments], dict[str, Any]]:
    return lambda arguments: {"status": status}


def _named_policy(arguments: Arguments) -> dict[str, Any]:
    return {"policy": arguments.policy or ""}


def _document(arguments: Arguments) -> dict[str, Any]:
    return {"document": arguments.document}


def _of_all(noun: str, plural: str) -> tuple[Step, ...]:
    """What every kind has."""
    force = (FORCE,) if noun in ("user", "group", "role") else ()
    return (
        Step("list", f"all {plural}", "GET", plural, plural),
        Step("show", f"one {noun}", "GET", f"{plural}/{{{noun}}}", noun),
        Step(
            "delete",
            f"remove a {noun}",
            "DELETE",
            f"{plural}/{{{noun}}}",
            "done",
            force,
            query=_forced if force else None,
        ),
    )


def _switches(noun: str, plural: str) -> tuple[Step, ...]:
    path = f"{plural}/{{{noun}}}/status"
    return (
        Step("disable", f"let a {noun} sign nothing", "POST", path, noun, body=_status("Inactive")),
        Step("enable", f"let a {noun} sign again", "POST", path, noun, body=_status("Active")),
    )


def _policies(noun: str, plural: str) -> tuple[Step, ...]:
    """What users, groups and roles have."""
    path = f"{plural}/{{{noun}}}"
    return (
        Step("attach", "attach a policy", "POST", f"{path}/attach", noun, (POLICY,), _named_policy),
        Step(
            "detach", "take a policy off", "POST", f"{path}/detach", noun, (POLICY,), _named_policy
        ),
        Step(
            "put-policy",
            f"give a {noun} a policy of its own",
            "PUT",
            f"{path}/policies/{{policy}}",
            noun,
            (DOCUMENT,),
            _document,
        ),
        Step(
            "delete-policy",
            f"remove a policy of a {noun}'s own",
            "DELETE",
            f"{path}/policies/{{policy}}",
            "done",
        ),
    )


def _boundary(noun: str, plural: str) -> Step:
    option = Option("--policy", "name or ARN; without: no boundary any more")
    path = f"{plural}/{{{noun}}}/boundary"
    text = f"what a {noun} may do at most"
    return Step("boundary", text, "POST", path, noun, (option,), _named_policy)


def _new_user(arguments: Arguments) -> dict[str, Any]:
    return {
        "name": arguments.name,
        "path": arguments.path,
        "tags": dict(arguments.tag),
        "boundary": arguments.boundary,
    }


def _new_key(arguments: Arguments) -> dict[str, Any]:
    ends = int(time.time()) + arguments.expires if arguments.expires else 0
    return {
        "user": arguments.user,
        "service": arguments.service,
        "policy": arguments.policy,
        "description": arguments.description,
        "expires_ms": ends * 1000,
    }


def _taken(*names: str) -> Callable[[Arguments], dict[str, Any]]:
    """A body of arguments by their names."""
    return lambda arguments: {name: getattr(arguments, name) for name in names}


NAME = Option("name", "the new name")
USERS = (
    Step(
        "create",
        "make a user, without keys and policies",
        "POST",
        "users",
        "user",
        (
            NAME,
            PATH,
            Option("--tag", "KEY=VALUE", tag, (), many=True),
            Option("--boundary", "name or ARN of a managed policy"),
        ),
        _new_user,
    ),
    *_of_all("user", "users"),
    *_switches("user", "users"),
    *_policies("user", "users"),
    _boundary("user", "users"),
    Step("keys", "its access keys and service accounts", "GET", "users/{user}/keys", "keys"),
)
GROUPS = (
    Step("create", "make a group", "POST", "groups", "group", (NAME, PATH), _taken("name", "path")),
    *_of_all("group", "groups"),
    *_policies("group", "groups"),
    Step(
        "add",
        "put a user into a group",
        "POST",
        "groups/{group}/members",
        "group",
        (Option("user", "who"),),
        _taken("user"),
    ),
    Step("remove", "take a user out", "DELETE", "groups/{group}/members/{user}", "done"),
)
KEYS = (
    Step(
        "create",
        "make an access key of a user, or with --service a service account",
        "POST",
        "keys",
        "key-made",
        (
            Option("user", "whose"),
            Option("--service", "a service account: acts as the user", None, False),
            Option("--policy", "file with what limits the service account", file_text),
            DESCRIPTION,
            Option("--expires", "end of the service account: 12h, 30d (never)", seconds, 0),
        ),
        _new_key,
    ),
    *_of_all("key", "keys"),
    *_switches("key", "keys"),
    Step("rotate", "a new key in its place", "POST", "keys/{key}/rotate", "key-made"),
    Step(
        "limit",
        "say anew what limits a service account",
        "PUT",
        "keys/{key}/policy",
        "key",
        (Option("--policy", "file with the policy; without: nothing", file_text),),
        _named_policy,
    ),
)
POLICIES = (
    Step(
        "create",
        "make a managed policy",
        "POST",
        "policies",
        "policy",
        (NAME, DOCUMENT, PATH, DESCRIPTION),
        _taken("name", "document", "path", "description"),
    ),
    *_of_all("policy", "policies"),
    Step(
        "set", "replace its document", "PUT", "policies/{policy}", "policy", (DOCUMENT,), _document
    ),
)
ROLES = (
    Step(
        "create",
        "make a role",
        "POST",
        "roles",
        "role",
        (
            NAME,
            Option("trust", "file with who may assume it", file_text),
            PATH,
            DESCRIPTION,
            Option("--max-session-seconds", "of a session (3600)", int, 3600),
        ),
        _taken("name", "trust", "path", "description", "max_session_seconds"),
    ),
    *_of_all("role", "roles"),
    Step(
        "trust",
        "say anew who may assume it",
        "PUT",
        "roles/{role}/trust",
        "role",
        (DOCUMENT,),
        _document,
    ),
    *_policies("role", "roles"),
    _boundary("role", "roles"),
)
NOUNS: dict[str, tuple[str, tuple[Step, ...]]] = {
    "user": ("users, their keys and policies", USERS),
    "group": ("groups of users", GROUPS),
    "key": ("access keys and service accounts", KEYS),
    "role": ("roles, which may be assumed", ROLES),
}


def add_commands(
    action: Callable[..., argparse.ArgumentParser], show: Show, policy_steps: Steps
) -> None:
    """Add all commands; `policy` is there already, and its steps are added to it. `show` presents
    an answer."""
    _add_steps(policy_steps, POLICIES, show)
    for noun, (text, steps) in NOUNS.items():
        parser = action(noun, None, text)
        added = parser.add_subparsers(dest="step", required=True, metavar="STEP")
        _add_steps(added, steps, show)


def _add_steps(parsers: Steps, steps: tuple[Step, ...], show: Show) -> None:
    for step in steps:
        parser = parsers.add_parser(step.name, help=step.help, description=step.help)
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
        for name in step.names:
            parser.add_argument(name)
        for option in step.further:
            _add_option(parser, option)
        parser.set_defaults(do=_doing(step, show))


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    if option.kind is None:
        parser.add_argument(option.flag, action="store_true", help=option.help)
        return
    more: dict[str, Any] = {"type": option.kind, "help": option.help}
    if option.flag.startswith("-"):
        more["default"] = option.default
    if option.many:
        more["action"] = "append"
        more["default"] = []
    parser.add_argument(option.flag, **more)


def _doing(step: Step, show: Show) -> Callable[[AdminClient, Arguments], int]:
    def do(client: AdminClient, arguments: Arguments) -> int:
        from s3gw.admin.client import segment

        values = {name: segment(getattr(arguments, name)) for name in step.names}
        path = "/admin/" + step.path.format(**values)
        if step.name == "list":
            return show(arguments, step.view, _all_pages(client, path, step.view))
        body = _said(step.body(arguments)) if step.body is not None else None
        query = step.query(arguments) if step.query is not None else None
        return show(arguments, step.view, client.call(step.method, path, body, query))

    return do


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given, which has the API's default."""
    return {name: value for name, value in body.items() if value is not None}


def _all_pages(client: AdminClient, path: str, name: str) -> dict[str, Any]:
    found: list[Any] = []
    query: dict[str, Any] = {"limit": PAGE}
    while True:
        answer = client.call("GET", path, query=query)
        found += answer[name]
        if not answer["next"]:
            return {name: found, "next": ""}
        query["after"] = answer["next"]
