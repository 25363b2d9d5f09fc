"""Users and their keys on the admin port: what they may call, and what it tells."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from s3gw.admin.row import Row
from s3gw.identities.documents import BUILT_IN
from tests.admin.conftest import Admin
from tests.admin.identity_calls import GROUP, KEY, MEMBER, POLICY, READS, ROLE, SERVICE, USER
from tests.admin.test_every_route import SIGNED, body_of, name_of, prepare
from tests.identities.policies import EVERYTHING, allow, document, trust


class User:
    """A user with a key, who calls the admin port."""

    def __init__(self, admin: Admin, name: str, key: Any) -> None:
        self._admin = admin
        self.name = name
        self.access_key = key["key"]["access_key"]
        self.secret_key = key["secret_key"]

    async def send(self, method: str, target: str, body: Any = b"") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._admin.send(
            method, target, content, access_key=self.access_key, secret_key=self.secret_key
        )


async def make_user(admin: Admin, *policies: str, service_policy: str | None = None) -> User:
    """A user with these policies, calling with its own key or a limited service account's."""
    await admin.call("POST", "/admin/users", {"name": "operator"})
    for number, policy in enumerate(policies):
        path = f"/admin/users/operator/policies/p{number}"
        await admin.call("PUT", path, {"document": policy})
    body: dict[str, Any] = {"user": "operator"}
    if service_policy is not None:
        body |= {"service": True, "policy": service_policy}
    return User(admin, "operator", await admin.call("POST", "/admin/keys", body))


@pytest.mark.parametrize("row", SIGNED, ids=name_of)
async def test_a_user_may_do_what_its_policies_name_and_nothing_else(
    admin: Admin, row: Row
) -> None:
    target, body = await prepare(admin, row), body_of(row)
    others = document(Effect="Allow", NotAction=row.action)
    user = await make_user(admin, others)
    before = admin.cluster.engine.revision
    refused = await user.send(row.method, target, body)
    assert (refused.status_code, refused.json()["error"]) == (403, "AccessDenied")
    assert admin.cluster.engine.revision == before
    path = "/admin/users/operator/policies/p0"
    await admin.call("PUT", path, {"document": allow(row.action)})
    reply = await user.send(row.method, target, body)
    assert reply.status_code == 200, reply.text


async def test_a_policy_for_s3_alone_opens_nothing_here(admin: Admin) -> None:
    user = await make_user(admin, allow("*", on="arn:aws:s3:::*"), allow("s3:*"))
    assert (await user.send("GET", "/admin/nodes")).status_code == 403


async def test_an_administrator_may_everything(admin: Admin) -> None:
    user = await make_user(admin)
    await admin.call("POST", "/admin/users/operator/attach", {"policy": EVERYTHING})
    assert (await user.send("GET", "/admin/nodes")).status_code == 200
    assert (await user.send("GET", "/admin/nothing")).status_code == 404


async def test_a_limited_service_account_stays_limited_here(admin: Admin) -> None:
    """Else it could make itself a key without the limit."""
    user = await make_user(admin, allow("s3gw:*", "s3:*"), service_policy=allow("s3:*"))
    for method, target, body in (
        ("POST", "/admin/keys", {"user": "operator"}),
        ("POST", "/admin/keys", {"user": "operator", "service": True}),
        ("PUT", f"/admin/keys/{user.access_key}/policy", {"policy": ""}),
        ("POST", f"/admin/keys/{user.access_key}/rotate", b""),
        ("GET", "/admin/keys", b""),
    ):
        reply = await user.send(method, target, body)
        assert (reply.status_code, reply.json()["error"]) == (403, "AccessDenied")


async def test_conditions_hold_here_too(admin: Admin) -> None:
    tagged = {"StringEquals": {"aws:PrincipalTag/team": "storage"}}
    user = await make_user(admin, document(Action="s3gw:*", Condition=tagged))
    assert (await user.send("GET", "/admin/nodes")).status_code == 403
    await admin.port.identity_store.set_user_tags("operator", {"team": "storage"})
    assert (await user.send("GET", "/admin/nodes")).status_code == 200


@pytest.mark.parametrize("how", ["key", "user"])
async def test_a_disabled_key_or_user_is_refused(admin: Admin, how: str) -> None:
    user = await make_user(admin, allow("s3gw:*"))
    path = {"key": f"/admin/keys/{user.access_key}", "user": "/admin/users/operator"}[how]
    for status, expected in (("Inactive", 403), ("Active", 200)):
        await admin.call("POST", f"{path}/status", {"status": status})
        assert (await user.send("GET", "/admin/nodes")).status_code == expected


async def test_a_signature_of_a_user_is_good_for_one_change(admin: Admin) -> None:
    user = await make_user(admin, allow("s3gw:*"))
    reply = await user.send("POST", "/admin/nodes/d0/cordon")
    signed = dict(reply.request.headers)
    again = await admin.http.request("POST", "/admin/nodes/d0/cordon", headers=signed)
    assert (again.status_code, again.json()["error"]) == (403, "RequestReplayed")


async def test_a_secret_is_shown_once_and_in_no_log(
    admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await admin.call(*USER)
        made = await admin.call(*KEY)
        rotated = await admin.call("POST", f"/admin/keys/{made['key']['access_key']}/rotate")
        secrets = (made["secret_key"], rotated["secret_key"])
        assert secrets[0] != secrets[1]
        for target in (
            "/admin/keys",
            f"/admin/keys/{rotated['key']['access_key']}",
            "/admin/users/alice/keys",
            "/admin/users/alice",
            "/admin/users",
        ):
            shown = json.dumps(await admin.get(target))
            assert not any(secret in shown for secret in secrets)
    assert "/admin/keys" in caplog.text
    assert not any(secret in caplog.text for secret in secrets)


async def test_lists_come_in_pages(admin: Admin) -> None:
    for name in ("b", "A", "c", "D"):
        await admin.call("POST", "/admin/users", {"name": name})
    first = await admin.get("/admin/users?limit=3")
    assert [user["name"] for user in first["users"]] == ["A", "b", "c"]
    second = await admin.get(f"/admin/users?limit=3&after={first['next']}")
    assert ([user["name"] for user in second["users"]], second["next"]) == (["D"], "")


async def test_built_in_policies_are_among_the_others(admin: Admin) -> None:
    await admin.call(*POLICY)
    found = {each["name"]: each for each in (await admin.get("/admin/policies"))["policies"]}
    assert set(found) == {*BUILT_IN, "reads"}
    assert found["readwrite"]["built_in"]
    assert not found["reads"]["built_in"]
    reply = await admin.send("PUT", "/admin/policies/readwrite", b'{"document": "{}"}')
    assert reply.status_code in (400, 404)
    assert (await admin.send("DELETE", "/admin/policies/readwrite")).status_code == 404


async def test_a_role_shows_the_id_of_whom_it_trusted_and_who_is_gone(admin: Admin) -> None:
    trusted = trust({"AWS": "arn:aws:iam::000000000000:user/alice"})
    body = json.dumps({"name": "ci", "trust": trusted}).encode()
    reply = await admin.send("POST", "/admin/roles", body)
    assert (reply.status_code, reply.json()["error"]) == (400, "MalformedPolicyDocument")
    await admin.call(*USER)
    await admin.call("POST", "/admin/roles", {"name": "ci", "trust": trusted})
    alice = (await admin.get("/admin/users/alice"))["user_id"]
    assert (await admin.get("/admin/roles/ci"))["trust"] == trusted
    await admin.call("DELETE", "/admin/users/alice")
    await admin.call(*USER)
    gone = json.loads(trust({"AWS": alice}))
    assert json.loads((await admin.get("/admin/roles/ci"))["trust"]) == gone
    (listed,) = (await admin.get("/admin/roles"))["roles"]
    assert json.loads(listed["trust"]) == gone
    attached = await admin.call("POST", "/admin/roles/ci/attach", {"policy": "readonly"})
    assert json.loads(attached["trust"]) == gone
    again = await admin.call("PUT", "/admin/roles/ci/trust", {"document": trusted})
    assert again["trust"] == trusted


async def test_what_is_in_the_way_is_said(admin: Admin) -> None:
    for call in (USER, GROUP, MEMBER, POLICY, ROLE, KEY):
        await admin.call(*call)
    await admin.call("POST", "/admin/roles/backup/attach", {"policy": "reads"})
    refused: dict[str, tuple[int, str]] = {
        "/admin/users/alice": (409, "DeleteConflict"),
        "/admin/groups/readers": (409, "DeleteConflict"),
        "/admin/policies/reads": (409, "DeleteConflict"),
        "/admin/roles/backup": (409, "DeleteConflict"),
    }
    for target, expected in refused.items():
        reply = await admin.send("DELETE", target)
        assert (reply.status_code, reply.json()["error"]) == expected
    for target in ("/admin/users/alice", "/admin/groups/readers", "/admin/roles/backup"):
        await admin.call("DELETE", f"{target}?force=true")
    await admin.call("DELETE", "/admin/policies/reads")
    assert (await admin.get("/admin/keys"))["keys"] == []


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        (USER, 409, "EntityAlreadyExists"),
        (("POST", "/admin/users", {"name": "a b"}), 400, "ValidationError"),
        (("POST", "/admin/users", {"name": "x", "path": "no"}), 400, "ValidationError"),
        (("POST", "/admin/users", {"name": "x", "boundary": "gone"}), 404, "NoSuchEntity"),
        (("POST", "/admin/keys", {"user": "gone"}), 404, "NoSuchEntity"),
        (("POST", "/admin/keys", {"user": "alice", "policy": READS}), 400, "BadRequest"),
        (
            ("POST", "/admin/policies", {"name": "x", "document": "{"}),
            400,
            "MalformedPolicyDocument",
        ),
        (("POST", "/admin/users/alice/attach", {"policy": "gone"}), 404, "NoSuchEntity"),
        (("POST", "/admin/users/alice/detach", {"policy": "readonly"}), 404, "NoSuchEntity"),
        (("POST", "/admin/users/alice/boundary", {"policy": ""}), 404, "NoSuchEntity"),
        (
            (*SERVICE[:2], {"user": "alice", "service": True, "expires_ms": 1}),
            400,
            "InvalidInput",
        ),
    ],
)
async def test_refusals_name_what_is_wrong(
    admin: Admin, call: tuple[str, str, Any], status: int, code: str
) -> None:
    await admin.call(*USER)
    reply = await admin.send(call[0], call[1], json.dumps(call[2]).encode())
    assert (reply.status_code, reply.json()["error"]) == (status, code), reply.text
