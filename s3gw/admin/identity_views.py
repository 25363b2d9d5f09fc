"""Users, groups, keys, policies and roles as text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from s3gw.admin.terminal import facts, moment, plain, table

Answer = Mapping[str, Any]


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)


def _short(policy_arns: Iterable[str]) -> str:
    return _joined(arn.rsplit("/", 1)[-1] for arn in policy_arns)


def _document(heading: str, text: str) -> str:
    """A policy as it was given, behind a heading."""
    return "\n".join([f"{heading}:", *("  " + plain(line) for line in text.splitlines())])


def _inline(answer: Answer) -> list[str]:
    return [_document(f"policy {name}", text) for name, text in answer["policies"].items()]


def _users(answer: Answer) -> str:
    rows = [
        [
            user["name"],
            user["status"],
            _joined(user["groups"]),
            _joined([*(f"{name} (own)" for name in user["policies"]), _short(user["attached"])]),
            len(user["access_keys"]),
            len(user["service_accounts"]),
            moment(user["created_ms"]),
        ]
        for user in answer["users"]
    ]
    headings = ["user", "status", "groups", "policies", "keys", "service accounts", "created"]
    return table(headings, rows) if rows else "there are no users"


def _user(user: Answer) -> str:
    lines = [
        ("user", user["name"]),
        ("arn", user["arn"]),
        ("id", user["user_id"]),
        ("status", user["status"]),
        ("created", moment(user["created_ms"])),
        ("groups", _joined(user["groups"])),
        ("attached", _joined(user["attached"])),
        ("boundary", user["boundary"]),
        ("access keys", _joined(user["access_keys"])),
        ("service accounts", _joined(user["service_accounts"])),
        ("tags", _joined(f"{name}={value}" for name, value in user["tags"].items())),
    ]
    return "\n".join([facts(lines), *_inline(user)])


def _groups(answer: Answer) -> str:
    rows = [
        [group["name"], len(group["members"]), _short(group["attached"])]
        for group in answer["groups"]
    ]
    return table(["group", "members", "attached"], rows) if rows else "there are no groups"


def _group(group: Answer) -> str:
    lines = [
        ("group", group["name"]),
        ("arn", group["arn"]),
        ("members", _joined(group["members"])),
        ("attached", _joined(group["attached"])),
    ]
    return "\n".join([facts(lines), *_inline(group)])


def _kind(key: Answer) -> str:
    if not key["service"]:
        return "access key"
    return "service account, limited" if key["policy"] else "service account"


def _keys(answer: Answer) -> str:
    rows = [
        [
            key["access_key"],
            key["user"],
            key["status"],
            _kind(key),
            moment(key["created_ms"]),
            moment(key["expires_ms"]),
            key["description"],
        ]
        for key in answer["keys"]
    ]
    headings = ["key", "user", "status", "kind", "created", "ends", "description"]
    return table(headings, rows) if rows else "there are no access keys"


def _key_lines(key: Answer) -> list[tuple[str, Any]]:
    return [
        ("access key", key["access_key"]),
        ("user", key["user"]),
        ("kind", _kind(key)),
        ("status", key["status"]),
        ("created", moment(key["created_ms"])),
        ("ends", moment(key["expires_ms"])),
        ("description", key["description"]),
    ]


def _key(key: Answer) -> str:
    limit = [_document("limited to", key["policy"])] if key["policy"] else []
    return "\n".join([facts(_key_lines(key)), *limit])


def _key_made(answer: Answer) -> str:
    lines = [*_key_lines(answer["key"]), ("secret key", answer["secret_key"])]
    return facts(lines) + "\nthe secret is not shown again"


def _policies(answer: Answer) -> str:
    rows = [
        [
            policy["name"],
            "built in" if policy["built_in"] else f"v{policy['version']}",
            moment(policy["updated_ms"]),
            policy["description"],
        ]
        for policy in answer["policies"]
    ]
    return table(["policy", "version", "changed", "description"], rows)


def _policy(policy: Answer) -> str:
    lines = [
        ("policy", policy["name"]),
        ("arn", policy["arn"]),
        ("version", "built in" if policy["built_in"] else f"v{policy['version']}"),
        ("changed", moment(policy["updated_ms"])),
        ("description", policy["description"]),
    ]
    return "\n".join([facts(lines), _document("document", policy["document"])])


def _roles(answer: Answer) -> str:
    rows = [
        [role["name"], _short(role["attached"]), role["max_session_seconds"], role["description"]]
        for role in answer["roles"]
    ]
    headings = ["role", "attached", "seconds", "description"]
    return table(headings, rows) if rows else "there are no roles"


def _role(role: Answer) -> str:
    lines = [
        ("role", role["name"]),
        ("arn", role["arn"]),
        ("id", role["role_id"]),
        ("description", role["description"]),
        ("sessions", f"{role['max_session_seconds']} s"),
        ("attached", _joined(role["attached"])),
        ("boundary", role["boundary"]),
        ("tags", _joined(f"{name}={value}" for name, value in role["tags"].items())),
    ]
    return "\n".join([facts(lines), _document("trust", role["trust"]), *_inline(role)])


IDENTITY_VIEWS: dict[str, Callable[[Answer], str]] = {
    "users": _users,
    "user": _user,
    "groups": _groups,
    "group": _group,
    "keys": _keys,
    "key": _key,
    "key-made": _key_made,
    "policies": _policies,
    "policy": _policy,
    "roles": _roles,
    "role": _role,
}
