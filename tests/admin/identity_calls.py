"""Calls about identities: a body for each operation that has one, and what must be there before."""

from __future__ import annotations

from typing import Any

from s3gw.admin.identity_routes import EXAMPLES
from tests.identities.policies import allow, trust

READS = allow("s3:GetObject")
TRUST = trust({"AWS": "000000000000"})
Call = tuple[str, str, Any]

USER: Call = ("POST", "/admin/users", {"name": EXAMPLES["user"]})
GROUP: Call = ("POST", "/admin/groups", {"name": EXAMPLES["group"]})
ROLE: Call = ("POST", "/admin/roles", {"name": EXAMPLES["role"], "trust": TRUST})
POLICY: Call = ("POST", "/admin/policies", {"name": EXAMPLES["policy"], "document": READS})
KEY: Call = ("POST", "/admin/keys", {"user": EXAMPLES["user"]})
SERVICE: Call = ("POST", "/admin/keys", {"user": EXAMPLES["user"], "service": True})
MEMBER: Call = (
    "POST",
    f"/admin/groups/{EXAMPLES['group']}/members",
    {"user": EXAMPLES["user"]},
)
MADE = {"user": USER, "group": GROUP, "role": ROLE}


def _of_each_kind() -> tuple[dict[str, Any], dict[str, list[Call]]]:
    """Bodies and preparations of the operations that users, groups and roles have alike."""
    bodies: dict[str, Any] = {}
    before: dict[str, list[Call]] = {}
    for kind, made in MADE.items():
        of, path = kind.capitalize(), f"/admin/{kind}s/{EXAMPLES[kind]}"
        named = {"policy": EXAMPLES["policy"]}
        bodies |= {
            f"put{of}Policy": {"document": READS},
            f"attach{of}Policy": named,
            f"detach{of}Policy": named,
            f"set{of}Boundary": named,
        }
        before |= {
            f"get{of}": [made],
            f"delete{of}": [made],
            f"put{of}Policy": [made],
            f"delete{of}Policy": [
                made,
                ("PUT", f"{path}/policies/{EXAMPLES['policy']}", {"document": READS}),
            ],
            f"attach{of}Policy": [made, POLICY],
            f"detach{of}Policy": [made, POLICY, ("POST", f"{path}/attach", named)],
            f"set{of}Boundary": [made, POLICY],
        }
    return bodies, before


_BODIES, _BEFORE = _of_each_kind()
IDENTITY_BODIES: dict[str, Any] = {
    **_BODIES,
    "createUser": USER[2],
    "createGroup": GROUP[2],
    "createRole": ROLE[2],
    "createPolicy": POLICY[2],
    "createKey": KEY[2],
    "setUserStatus": {"status": "Inactive"},
    "setKeyStatus": {"status": "Inactive"},
    "setKeyPolicy": {"policy": READS},
    "setPolicy": {"document": allow("s3:PutObject")},
    "setRoleTrust": {"document": TRUST},
    "addGroupMember": MEMBER[2],
}
IDENTITY_BEFORE: dict[str, list[Call]] = {
    **_BEFORE,
    "setUserStatus": [USER],
    "listUserKeys": [USER, KEY],
    "listUsers": [USER],
    "listGroups": [USER, GROUP, MEMBER],
    "listKeys": [USER, KEY],
    "addGroupMember": [USER, GROUP],
    "removeGroupMember": [USER, GROUP, MEMBER],
    "createKey": [USER],
    "getKey": [USER, KEY],
    "deleteKey": [USER, KEY],
    "setKeyStatus": [USER, KEY],
    "rotateKey": [USER, KEY],
    "setKeyPolicy": [USER, SERVICE],
    "getPolicy": [POLICY],
    "setPolicy": [POLICY],
    "deletePolicy": [POLICY],
    "setRoleTrust": [ROLE],
}
