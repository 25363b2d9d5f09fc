"""Changes of identities: what each does, and what it refuses. The whole life over every engine, the
bounds in memory."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3gw import limits
from s3gw.identities.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    IdentityError,
    InvalidInput,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ValidationError,
)
from s3gw.identities.managed import arn_of
from s3gw.identities.store import IdentityStore
from s3gw.metadata import keys
from tests.identities.conftest import START_MS, Gateway
from tests.identities.policies import EVERYTHING, READ_ONLY, allow, trust

TRUST = trust({"AWS": "000000000000"})
KINDS = ("user", "group", "role")


async def make(store: IdentityStore, kind: str, name: str = "x") -> None:
    """A user, group or role of this name."""
    if kind == "user":
        await store.create_user(name)
    elif kind == "group":
        await store.create_group(name)
    else:
        await store.create_role(name, TRUST)


async def test_a_user_from_creation_to_removal(anywhere: Gateway) -> None:
    store = anywhere.store
    made = await store.create_user("alice", path="/staff/", tags={"team": "blue"})
    assert (made.name, made.path, made.created_ms) == ("alice", "/staff/", START_MS)
    assert re.fullmatch(r"AIDA[A-Z2-7]{17}", made.user_id)
    assert await store.get_user("alice") == made
    await store.create_user("Bob")
    assert [user.name for user in await store.list_users()] == ["alice", "Bob"]

    record, secret = await store.create_access_key("alice")
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", record.access_key)
    assert re.fullmatch(r"[\w+/]{40}", secret)
    assert secret.encode() not in record.secret
    assert await store.list_access_keys("alice") == [record]

    await store.update_user("alice", new_name="alicia", new_path="/")
    renamed = await store.get_user("alicia")
    assert (renamed.user_id, renamed.path) == (made.user_id, "/")
    assert [key.user for key in await store.list_access_keys("alicia")] == ["alicia"]
    with pytest.raises(NoSuchEntity):
        await store.get_user("alice")

    with pytest.raises(DeleteConflict, match="delete access keys first"):
        await store.delete_user("alicia")
    await store.delete_access_key(record.access_key)
    await store.delete_user("alicia")
    assert [user.name for user in await store.list_users()] == ["Bob"]


async def test_groups_have_members(anywhere: Gateway) -> None:
    store = anywhere.store
    await store.create_group("readers", path="/all/")
    for name in ("alice", "bob"):
        await store.create_user(name)
        await store.add_user_to_group("readers", name)
    await store.add_user_to_group("readers", "bob")
    assert [user.name for user in await store.members_of("readers")] == ["alice", "bob"]
    with pytest.raises(DeleteConflict, match="remove users"):
        await store.delete_group("readers", force=True)
    with pytest.raises(DeleteConflict, match="remove user from all groups"):
        await store.delete_user("bob")
    for name in ("alice", "bob"):
        await store.remove_user_from_group("readers", name)
    with pytest.raises(NoSuchEntity, match="not in group"):
        await store.remove_user_from_group("readers", "bob")
    await store.delete_group("readers")
    assert await store.list_groups() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_policies_of_users_groups_and_roles(anywhere: Gateway, kind: str) -> None:
    store = anywhere.store
    await make(store, kind)
    own = arn_of(await store.create_policy("own", allow("s3:GetObject"), path="/p/"))
    assert own == "arn:aws:iam::000000000000:policy/p/own"
    await store.put_inline_policy(kind, "x", "inline", allow("s3:PutObject"))
    await store.put_inline_policy(kind, "x", "inline", allow("s3:ListBucket"))
    assert await store.get_inline_policy(kind, "x", "inline") == allow("s3:ListBucket")
    for policy in (own, READ_ONLY, own):
        await store.attach_policy(kind, "x", policy)
    assert (await store.holder(kind, "x")).attached == (own, READ_ONLY)
    found = dict(zip(KINDS, await store.entities_of(own), strict=True))
    assert {each: [holder.name for holder in found[each]] for each in found} == {
        each: ["x"] if each == kind else [] for each in KINDS
    }
    with pytest.raises(DeleteConflict, match="attached"):
        await store.delete_policy(own)
    remove: Callable[[], Awaitable[None]] = {
        "user": lambda: store.delete_user("x"),
        "group": lambda: store.delete_group("x"),
        "role": lambda: store.delete_role("x"),
    }[kind]
    with pytest.raises(DeleteConflict, match="delete policies"):
        await remove()
    await store.delete_inline_policy(kind, "x", "inline")
    with pytest.raises(NoSuchEntity):
        await store.delete_inline_policy(kind, "x", "inline")
    with pytest.raises(DeleteConflict, match="detach"):
        await remove()
    for policy in (own, READ_ONLY):
        await store.detach_policy(kind, "x", policy)
    with pytest.raises(NoSuchEntity):
        await store.detach_policy(kind, "x", own)
    await store.delete_policy(own)
    await remove()


@pytest.mark.parametrize("kind", ["user", "role"])
async def test_permissions_boundaries(identities: IdentityStore, kind: str) -> None:
    own = arn_of(await identities.create_policy("own", allow("s3:*")))
    await make(identities, kind)
    await identities.put_boundary(kind, "x", own)
    with pytest.raises(DeleteConflict, match="boundary"):
        await identities.delete_policy(own)
    await identities.delete_boundary(kind, "x")
    with pytest.raises(NoSuchEntity):
        await identities.delete_boundary(kind, "x")
    await identities.delete_policy(own)
    with pytest.raises(NoSuchEntity):
        await identities.put_boundary(kind, "x", own)
    with pytest.raises(NoSuchEntity):
        await identities.create_user("other", boundary=own)


async def test_a_group_has_no_boundary(identities: IdentityStore) -> None:
    await identities.create_group("g")
    with pytest.raises(InvalidInput):
        await identities.put_boundary("group", "g", EVERYTHING)


async def test_roles_and_their_trust(anywhere: Gateway) -> None:
    store = anywhere.store
    role = await store.create_role("r", TRUST, path="/jobs/", max_session_seconds=7200)
    assert re.fullmatch(r"AROA[A-Z2-7]{17}", role.role_id)
    other = trust({"Federated": "arn:aws:iam::000000000000:oidc-provider/idp.example"})
    await store.update_assume_role_policy("r", other)
    await store.update_role("r", description="runs at night", max_session_seconds=3600)
    found = await store.get_role("r")
    assert (found.trust, found.description, found.max_session_seconds) == (
        other,
        "runs at night",
        3600,
    )
    await store.delete_role("r")
    assert await store.list_roles() == []


async def test_providers(anywhere: Gateway) -> None:
    store = anywhere.store
    made = await store.create_open_id_connect_provider(
        "https://idp.example/realm/", client_ids=["a", "b", "a"], thumbprints=["0" * 40]
    )
    arn = "arn:aws:iam::000000000000:oidc-provider/idp.example/realm"
    assert made.client_ids == ("a", "b")
    assert await store.get_open_id_connect_provider(arn) == made
    with pytest.raises(EntityAlreadyExists):
        await store.create_open_id_connect_provider("https://idp.example/realm")
    assert await store.list_open_id_connect_providers() == [made]
    await store.delete_open_id_connect_provider(arn)
    with pytest.raises(NoSuchEntity):
        await store.get_open_id_connect_provider(arn)


async def test_managed_policies_are_replaced_and_numbered(identities: IdentityStore) -> None:
    made = await identities.create_policy("p", allow("s3:GetObject"), description="reads")
    arn = arn_of(made)
    same = await identities.update_policy(arn, allow("s3:GetObject"))
    assert same.version == 1
    changed = await identities.update_policy(arn, allow("s3:PutObject"))
    assert (changed.version, changed.policy_id) == (2, made.policy_id)
    assert await identities.named_policy("p") == await identities.get_policy(arn) == changed
    assert [each.name for each in await identities.list_policies()] == ["p"]


async def test_built_in_policies_are_there_and_fixed(identities: IdentityStore) -> None:
    for name in ("readwrite", "readonly", "writeonly", "AmazonS3FullAccess"):
        found = await identities.named_policy(name)
        assert arn_of(found) == f"arn:aws:iam::aws:policy/{name}"
        with pytest.raises(EntityAlreadyExists):
            await identities.create_policy(name.upper(), allow("s3:*"))
    with pytest.raises(NoSuchEntity):
        await identities.update_policy(EVERYTHING, allow("s3:*"))
    with pytest.raises(NoSuchEntity):
        await identities.delete_policy(EVERYTHING)


async def test_a_user_has_two_keys_at_most_and_service_accounts_besides(
    identities: IdentityStore,
) -> None:
    await identities.create_user("u")
    for _ in range(2):
        await identities.create_access_key("u")
    with pytest.raises(LimitExceeded):
        await identities.create_access_key("u")
    for _ in range(limits.IAM_SERVICE_ACCOUNTS_PER_USER_MAX):
        await identities.create_service_account("u")
    with pytest.raises(LimitExceeded):
        await identities.create_service_account("u")
    # All at once is still one commit.
    await identities.update_user("u", new_name="v")
    await identities.delete_user("v", force=True)
    assert await identities.list_all_access_keys() == []


async def test_a_service_account_keeps_what_limits_it_when_it_is_rotated(
    anywhere: Gateway,
) -> None:
    store = anywhere.store
    await store.create_user("u")
    before, secret = await store.create_service_account(
        "u", policy=allow("s3:GetObject"), description="backup", expires_ms=START_MS + 1
    )
    await store.update_access_key(before.access_key, "Inactive")
    after, other = await store.rotate_access_key(before.access_key)
    assert (after.service, after.policy, after.description, after.expires_ms) == (
        True,
        allow("s3:GetObject"),
        "backup",
        START_MS + 1,
    )
    assert (after.status, after.access_key != before.access_key, other != secret) == (
        "Active",
        True,
        True,
    )
    assert await store.list_access_keys("u") == [after]
    with pytest.raises(NoSuchEntity):
        await store.get_access_key(before.access_key)


async def test_a_key_is_changed_only_under_its_own_user(identities: IdentityStore) -> None:
    for name in ("u", "v"):
        await identities.create_user(name)
    key, _ = await identities.create_access_key("u")
    with pytest.raises(NoSuchEntity):
        await identities.delete_access_key(key.access_key, user="v")
    with pytest.raises(NoSuchEntity):
        await identities.update_access_key(key.access_key, "Inactive", user="v")
    with pytest.raises(InvalidInput):
        await identities.set_service_policy(key.access_key, allow("s3:*"))
    with pytest.raises(InvalidInput):
        await identities.update_access_key(key.access_key, "Off")


async def test_names_that_differ_by_case_are_the_same_name(identities: IdentityStore) -> None:
    await identities.create_user("Alice")
    with pytest.raises(EntityAlreadyExists):
        await identities.create_user("ALICE")
    with pytest.raises(NoSuchEntity):
        await identities.get_user("alice")
    await identities.update_user("Alice", new_name="alice")
    assert (await identities.get_user("alice")).name == "alice"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 65, "\ud800", "a\n"])
async def test_names_that_are_none(identities: IdentityStore, name: str) -> None:
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: identities.create_user(name),
        lambda: identities.get_user(name),
        lambda: identities.delete_user(name),
        lambda: identities.create_role(name, TRUST),
        lambda: identities.get_role(name),
    ]
    for attempt in attempts:
        with pytest.raises(ValidationError):
            await attempt()


@pytest.mark.parametrize("path", ["", "a", "/a", "a/", "/a b/", "/é/", "/" + "x" * 511 + "/"])
async def test_paths_that_are_none(identities: IdentityStore, path: str) -> None:
    with pytest.raises(ValidationError):
        await identities.create_user("u", path=path)


@pytest.mark.parametrize(
    "tags",
    [
        {"": "x"},
        {"x" * 129: ""},
        {"x": "y" * 257},
        {"aws:x": "y"},
        {"a": "1", "A": "2"},
        {"<": ""},
        {"x": "\ud800"},
    ],
)
async def test_tags_that_are_none(identities: IdentityStore, tags: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        await identities.create_user("u", tags=tags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "not JSON",
        '{"Statement": []}',
        '{"Statement": [{"Effect": "Allow", "Action": "s3:*"}]}',
        trust({"AWS": "*"}, "s3:GetObject").replace("Allow", "Maybe"),
        '{"Statement": [{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}',
        "\ud800",
    ],
)
async def test_documents_that_are_none(identities: IdentityStore, text: str) -> None:
    await identities.create_user("u")
    await identities.create_role("r", TRUST)
    before = await identities.store.kv.get_many([keys.IDENTITY_GENERATION])
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: identities.create_policy("p", text),
        lambda: identities.put_inline_policy("user", "u", "p", text),
        lambda: identities.update_assume_role_policy("r", text),
    ]
    if text:
        attempts.append(lambda: identities.create_service_account("u", policy=text))
    for attempt in attempts:
        with pytest.raises(MalformedPolicyDocument):
            await attempt()
    assert await identities.store.kv.get_many([keys.IDENTITY_GENERATION]) == before


async def test_sizes_of_documents_do_not_count_white_space(identities: IdentityStore) -> None:
    await identities.create_user("u")
    spacious = allow("s3:GetObject").replace(" ", " " * 1000)
    await identities.put_inline_policy("user", "u", "p", spacious)
    with pytest.raises(LimitExceeded):
        await identities.put_inline_policy("user", "u", "q", allow("s3:" + "?" * 1990))
    with pytest.raises(LimitExceeded):
        await identities.create_policy("q", allow(*["s3:GetObject"] * 500))
    # Together they are too large, though each is not.
    await identities.put_inline_policy("user", "u", "q", allow(*["s3:GetObject"] * 60))
    with pytest.raises(LimitExceeded):
        await identities.put_inline_policy("user", "u", "r", allow(*["s3:GetObject"] * 60))


async def test_quotas(identities: IdentityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IAM_USERS_MAX", "IAM_GROUPS_MAX", "IAM_ROLES_MAX", "IAM_POLICIES_MAX"):
        monkeypatch.setattr(limits, name, 1)
    monkeypatch.setattr(limits, "OIDC_PROVIDERS_MAX", 1)
    attempts: list[Callable[[str], Awaitable[Any]]] = [
        identities.create_user,
        identities.create_group,
        lambda name: identities.create_role(name, TRUST),
        lambda name: identities.create_policy(name, allow("s3:*")),
        lambda name: identities.create_open_id_connect_provider(f"https://{name}.example"),
    ]
    for attempt in attempts:
        await attempt("one")
        with pytest.raises(LimitExceeded):
            await attempt("two")


async def test_quotas_of_what_one_has(identities: IdentityStore) -> None:
    await identities.create_user("u")
    for number in range(limits.IAM_GROUPS_PER_USER_MAX + 1):
        await identities.create_group(f"g{number}")
        await identities.create_policy(f"p{number}", allow("s3:*"))
    arn = "arn:aws:iam::000000000000:policy/p{}".format
    for number in range(limits.IAM_GROUPS_PER_USER_MAX):
        await identities.add_user_to_group(f"g{number}", "u")
        await identities.attach_policy("user", "u", arn(number))
    with pytest.raises(LimitExceeded):
        await identities.add_user_to_group(f"g{limits.IAM_GROUPS_PER_USER_MAX}", "u")
    with pytest.raises(LimitExceeded):
        await identities.attach_policy("user", "u", arn(limits.IAM_ATTACHED_POLICIES_MAX))


@pytest.mark.parametrize(
    "policy",
    [
        "readwrite",
        "",
        "arn:aws:iam::aws:policy/nothing",
        "arn:aws:iam::000000000000:policy/nothing",
        "arn:aws:iam::111111111111:policy/x",
        "arn:aws:iam::000000000000:policy/é",
    ],
)
async def test_policies_that_cannot_be_attached(identities: IdentityStore, policy: str) -> None:
    await identities.create_user("u")
    for attempt in (identities.attach_policy, identities.put_boundary):
        with pytest.raises(IdentityError) as caught:
            await attempt("user", "u", policy)
        assert caught.value.code in ("NoSuchEntity", "ValidationError")


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example",
        "https://",
        "https://u@idp.example",
        "https://idp.example?x=1",
        "https://idp.example#x",
        "https://idp.example:x",
        "https://[idp",
        "https://idp example",
        "https://" + "x" * 255,
        "https://é.example",
    ],
)
async def test_urls_that_are_no_providers(identities: IdentityStore, url: str) -> None:
    with pytest.raises(InvalidInput):
        await identities.create_open_id_connect_provider(url)
