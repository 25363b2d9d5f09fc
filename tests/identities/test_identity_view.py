"""What a process knows of identities: whom a key stands for, what they may do, and how soon."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from s3gw import limits
from s3gw.auth.policy import Match, PrincipalType, RequestContext
from s3gw.auth.policy_evaluate import NO_PERMISSIONS, decide
from s3gw.auth.policy_parse import parse_bucket_policy
from s3gw.errors import InvalidAccessKeyId, InvalidToken
from s3gw.identities import view
from s3gw.identities.managed import arn_of
from s3gw.identities.view import Identities, user_principal
from s3gw.kv.interface import KV, Event, Put, Unavailable
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys
from s3gw.metadata.identity_records import UserRecord
from s3gw.metadata.records import encode
from tests.identities.conftest import ROOT, START_MS, STORES, Clock, Gateway, make_gateway
from tests.identities.policies import EVERYTHING, READ_ONLY, allow, document, trust

Pair = tuple[Gateway, Gateway]
BUCKET = "arn:aws:s3:::b"
WITHIN_SECONDS = 1.0


async def key_of(gateway: Gateway, user: str = "u") -> tuple[str, str]:
    """A new key of a user, known to the view of this gateway: id and secret."""
    record, secret = await gateway.store.create_access_key(user)
    await gateway.view.refresh()
    return record.access_key, secret


def may(
    gateway: Gateway, access_key: str, action: str, resource: str = f"{BUCKET}/k", policy: str = ""
) -> bool:
    """Whether the key may do this; `policy` is the bucket's."""
    principal, permissions = gateway.view.identify(access_key, None)
    policies = [parse_bucket_policy(policy.encode(), "b", limit=20_000)] if policy else []
    return decide(RequestContext(principal, action, resource), permissions, policies).allowed


async def test_root_is_known_without_any_record(gateway: Gateway) -> None:
    assert gateway.view.signing_secret(ROOT.access_key, None) == ROOT.secret_key
    principal, permissions = gateway.view.identify(ROOT.access_key, None)
    assert principal.is_root
    assert permissions is NO_PERMISSIONS


async def test_root_wins_over_a_key_of_the_same_id(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    record, _ = await gateway.store.create_access_key("u")
    await gateway.kv.commit(
        [], [Put(keys.identity_key(ROOT.access_key), b"\x01" + b"\x00"), generation()]
    )
    await gateway.view.refresh()
    assert gateway.view.signing_secret(ROOT.access_key, None) == ROOT.secret_key
    assert gateway.view.identify(record.access_key, None)[0].name == "u"


def generation() -> Put:
    return Put(keys.IDENTITY_GENERATION, b"changed!")


async def test_a_user_is_known_by_its_key(anywhere: Gateway) -> None:
    await anywhere.store.create_user("alice", path="/staff/", tags={"Team": "blue"})
    access_key, secret = await key_of(anywhere, "alice")
    assert anywhere.view.signing_secret(access_key, None) == secret
    principal, _ = anywhere.view.identify(access_key, None)
    user = await anywhere.store.get_user("alice")
    assert principal.type is PrincipalType.USER
    assert principal.arn == "arn:aws:iam::000000000000:user/staff/alice"
    assert (principal.name, principal.user_id) == ("alice", user.user_id)
    assert principal.id == ROOT.canonical_id
    assert principal.claims == {"aws:principaltag/team": ("blue",)}


@pytest.mark.parametrize("access_key", ["", "AKIAUNKNOWN", "é", "\x00", "x" * 10_000])
async def test_keys_that_nobody_has(gateway: Gateway, access_key: str) -> None:
    for ask in (gateway.view.signing_secret, gateway.view.identify):
        with pytest.raises(InvalidAccessKeyId):
            ask(access_key, None)


@pytest.mark.parametrize("token", ["", "x"])
async def test_long_lived_keys_take_no_session_token(gateway: Gateway, token: str) -> None:
    await gateway.store.create_user("u")
    access_key, _ = await key_of(gateway)
    for each in (access_key, ROOT.access_key):
        with pytest.raises(InvalidToken):
            gateway.view.signing_secret(each, token)


async def test_policies_of_the_user_of_its_groups_and_attached_ones_add_up(
    gateway: Gateway,
) -> None:
    store = gateway.store
    await store.create_user("u")
    await store.create_group("g")
    access_key, _ = await key_of(gateway)
    assert not may(gateway, access_key, "s3:GetObject")
    await store.put_inline_policy("user", "u", "p", allow("s3:PutObject"))
    own = arn_of(await store.create_policy("own", allow("s3:DeleteObject")))
    await store.attach_policy("user", "u", own)
    await store.add_user_to_group("g", "u")
    await store.attach_policy("group", "g", READ_ONLY)
    await store.put_inline_policy("group", "g", "p", allow("s3:AbortMultipartUpload"))
    await gateway.view.refresh()
    for action in ("PutObject", "DeleteObject", "GetObject", "AbortMultipartUpload"):
        assert may(gateway, access_key, f"s3:{action}")
    assert not may(gateway, access_key, "s3:PutObjectTagging")
    deny = document(Effect="Deny", Action="s3:GetObject")
    await store.put_inline_policy("group", "g", "deny", deny)
    await store.update_policy(own, allow("s3:PutObjectTagging"))
    await gateway.view.refresh()
    assert not may(gateway, access_key, "s3:GetObject")
    assert not may(gateway, access_key, "s3:DeleteObject")
    assert may(gateway, access_key, "s3:PutObjectTagging")


async def test_a_boundary_limits_what_policies_allow(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    await gateway.store.attach_policy("user", "u", EVERYTHING)
    await gateway.store.put_boundary("user", "u", READ_ONLY)
    access_key, _ = await key_of(gateway)
    assert may(gateway, access_key, "s3:GetObject")
    assert not may(gateway, access_key, "s3:PutObject")


async def test_a_service_account_may_what_its_user_and_its_own_policy_both_allow(
    gateway: Gateway,
) -> None:
    await gateway.store.create_user("u")
    await gateway.store.put_inline_policy("user", "u", "p", allow("s3:GetObject", "s3:PutObject"))
    limited, _ = await gateway.store.create_service_account(
        "u", policy=allow("s3:GetObject", "s3:DeleteObject")
    )
    free, _ = await gateway.store.create_service_account("u")
    await gateway.view.refresh()
    wanted = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
    assert [may(gateway, limited.access_key, each) for each in wanted] == [True, False, False]
    assert [may(gateway, free.access_key, each) for each in wanted] == [True, True, False]


@pytest.mark.parametrize("how", ["arn", "id", "account", "everyone"])
async def test_no_bucket_policy_opens_the_limit_of_a_service_account(
    gateway: Gateway, how: str
) -> None:
    user = await gateway.store.create_user("u")
    await gateway.store.attach_policy("user", "u", EVERYTHING)
    own, _ = await gateway.store.create_access_key("u")
    limited, _ = await gateway.store.create_service_account("u", policy=allow("s3:GetObject"))
    await gateway.view.refresh()
    principal: Any = {
        "arn": {"AWS": "arn:aws:iam::000000000000:user/u"},
        "id": {"AWS": user.user_id},
        "account": {"AWS": "000000000000"},
        "everyone": "*",
    }[how]
    policy = document(Principal=principal, Action="s3:*", Resource=[BUCKET, f"{BUCKET}/*"])
    assert may(gateway, own.access_key, "s3:PutObject", policy=policy)
    assert may(gateway, limited.access_key, "s3:GetObject", policy=policy)
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:PutObjectTagging"):
        assert not may(gateway, limited.access_key, action, policy=policy)


async def test_the_limit_of_a_service_account_holds_for_every_service(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    await gateway.store.attach_policy("user", "u", EVERYTHING)
    limited, _ = await gateway.store.create_service_account("u", policy=allow("s3:*"))
    await gateway.view.refresh()
    for action in ("iam:CreateAccessKey", "sts:AssumeRole", "s3gw:CreateKey"):
        assert not may(gateway, limited.access_key, action, "arn:aws:iam::000000000000:user/u")


async def test_a_service_account_ends(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    record, _ = await gateway.store.create_service_account("u", expires_ms=START_MS + 1000)
    await gateway.view.refresh()
    gateway.clock.now_ms = START_MS + 999
    gateway.view.identify(record.access_key, None)
    gateway.clock.now_ms = START_MS + 1000
    with pytest.raises(InvalidAccessKeyId):
        gateway.view.identify(record.access_key, None)
    with pytest.raises(InvalidAccessKeyId):
        gateway.view.signing_secret(record.access_key, None)


@pytest.mark.parametrize("how", ["key", "user", "deleted", "removed", "rotated"])
async def test_what_is_disabled_or_gone_is_nobody(anywhere: Gateway, how: str) -> None:
    store = anywhere.store
    await store.create_user("u")
    access_key, _ = await key_of(anywhere)
    anywhere.view.identify(access_key, None)
    match how:
        case "key":
            await store.update_access_key(access_key, "Inactive")
        case "user":
            await store.set_user_status("u", "Inactive")
        case "deleted":
            await store.delete_access_key(access_key)
        case "removed":
            await store.delete_user("u", force=True)
        case "rotated":
            await store.rotate_access_key(access_key)
    await anywhere.view.refresh()
    with pytest.raises(InvalidAccessKeyId):
        anywhere.view.identify(access_key, None)


async def test_what_was_disabled_works_again(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    access_key, secret = await key_of(gateway)
    for status in ("Inactive", "Active"):
        await gateway.store.update_access_key(access_key, status)
        await gateway.store.set_user_status("u", status)
    await gateway.view.refresh()
    assert gateway.view.signing_secret(access_key, None) == secret


async def test_a_user_made_anew_has_nothing_of_the_one_before(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    await gateway.store.attach_policy("user", "u", EVERYTHING)
    before, _ = await key_of(gateway)
    await gateway.store.delete_user("u", force=True)
    await gateway.store.create_user("u")
    after, _ = await key_of(gateway)
    assert not may(gateway, after, "s3:GetObject")
    with pytest.raises(InvalidAccessKeyId):
        gateway.view.identify(before, None)


async def until(holds: Callable[[], bool], seconds: float = WITHIN_SECONDS) -> None:
    """Wait until it holds, no longer than that."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def knows(view: Identities, access_key: str) -> bool:
    try:
        view.identify(access_key, None)
    except InvalidAccessKeyId:
        return False
    return True


async def test_changes_take_effect_on_the_other_gateway_within_a_second(gateways: Pair) -> None:
    here, there = gateways
    following = asyncio.create_task(there.view.follow())
    try:
        await here.store.create_user("u")
        record, _ = await here.store.create_access_key("u")
        await until(lambda: knows(there.view, record.access_key))
        await here.store.put_inline_policy("user", "u", "p", allow("s3:GetObject"))
        await until(lambda: may(there, record.access_key, "s3:GetObject"))
        await here.store.update_access_key(record.access_key, "Inactive")
        await until(lambda: not knows(there.view, record.access_key))
    finally:
        following.cancel()


class WithoutWatch:
    """An engine whose watch tells nothing, or fails."""

    def __init__(self, kv: KV, *, fails: bool) -> None:
        self._kv = kv
        self._fails = fails
        self.reading_fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kv, name)

    async def get_many(self, wanted: Any) -> Any:
        if self.reading_fails:
            raise Unavailable("the engine is away")
        return await self._kv.get_many(wanted)

    async def watch(self, prefix: bytes, *, after_revision: int) -> AsyncIterator[Event]:
        if self._fails:
            raise Unavailable("no watch")
        await asyncio.Event().wait()
        yield Event  # type: ignore[misc]  # never reached


@pytest.mark.parametrize("fails", [False, True])
async def test_changes_take_effect_within_a_second_without_a_watch(fails: bool) -> None:
    data = MemoryStore()
    here = await make_gateway(MemoryKV(data), Clock())
    blind: Any = WithoutWatch(MemoryKV(data), fails=fails)
    there = await make_gateway(blind, Clock())
    await here.store.create_user("u")
    record, _ = await here.store.create_access_key("u")
    following = asyncio.create_task(there.view.follow())
    try:
        await until(lambda: knows(there.view, record.access_key))
        await here.store.update_access_key(record.access_key, "Inactive")
        await until(lambda: not knows(there.view, record.access_key))
    finally:
        following.cancel()


async def test_an_engine_that_is_away_for_a_while_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = MemoryStore()
    here = await make_gateway(MemoryKV(data), Clock())
    blind: Any = WithoutWatch(MemoryKV(data), fails=True)
    there = await make_gateway(blind, Clock())
    await here.store.create_user("u")
    record, _ = await here.store.create_access_key("u")
    blind.reading_fails = True
    following = asyncio.create_task(there.view.follow())
    try:
        with caplog.at_level(logging.WARNING):
            await until(lambda: "could not be read" in caplog.text)
        assert not following.done()
        blind.reading_fails = False
        await until(lambda: knows(there.view, record.access_key))
    finally:
        following.cancel()


async def test_a_process_sees_its_own_changes_at_once() -> None:
    gateway = await make_gateway(MemoryKV(MemoryStore()), Clock())
    gateway.store._changed = gateway.view.catch_up
    await gateway.store.create_user("u")
    record, secret = await gateway.store.create_access_key("u")
    assert gateway.view.signing_secret(record.access_key, None) == secret


async def test_more_identities_than_a_page(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        await gateway.store.create_user(f"u{number}")
    monkeypatch.setattr(limits, "SCAN_ITEMS_MAX", 3)
    monkeypatch.setattr(view, "PAGE_ITEMS", 3)
    monkeypatch.setattr(view, "STEP_ITEMS", 2)
    await gateway.view.load()
    assert len(gateway.view.known.users) == 10
    assert len(await gateway.store.list_users()) == 10


async def test_a_change_among_thousands_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = STORES["sqlite"](tmp_path)
    gateway = await make_gateway(await data.open(), Clock())
    user = await gateway.store.create_user("u")
    names = [f"u{number}" for number in range(6000)]
    for first in range(0, len(names), 100):
        users = [msgspec.structs.replace(user, name=n) for n in names[first : first + 100]]
        writes = [Put(keys.identity_user(each.name), encode(each)) for each in users]
        await gateway.kv.commit([], [*writes, generation()])
    decoded, sorted_in, turns = [0], [0], []
    counted(monkeypatch, view, "_decoded", decoded)
    counted(monkeypatch, view.Snapshot, "add", sorted_in)

    async def watch() -> None:
        """What each turn of the event loop has sorted in, and its seconds of CPU."""
        before, began = 0, time.thread_time()
        while True:
            await asyncio.sleep(0)
            turns.append((sorted_in[0] - before, time.thread_time() - began))
            before, began = sorted_in[0], time.thread_time()
            # What is known is whole at every moment.
            assert len(gateway.view.known.users) in (0, 6001)

    gc.collect()
    gc.disable()  # its passes are nobody's turn
    watching = asyncio.create_task(watch())
    try:
        for changed in (6001, 1):
            decoded[0] = sorted_in[0] = 0
            turns.clear()
            await asyncio.gather(*(gateway.view.refresh() for _ in range(3)))
            assert len(gateway.view.known.users) == sorted_in[0] == 6001  # by one of the three
            assert decoded[0] == changed
            assert max(count for count, _ in turns) <= view.STEP_ITEMS
            steps = [seconds for count, seconds in turns if count]
            assert max(steps) < sum(steps) / 4
            await gateway.store.update_user("u9", new_path=f"/{changed}/")
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    finally:
        gc.enable()
        await gateway.kv.close()
        await data.close()


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: list[int]) -> None:
    """Count the calls of a function."""
    plain = getattr(owner, name)

    def counting(*arguments: Any) -> Any:
        calls[0] += 1
        return plain(*arguments)

    monkeypatch.setattr(owner, name, counting)


async def test_a_record_that_cannot_be_read_hides_its_own_identity_only(gateway: Gateway) -> None:
    for name in ("u", "v"):
        await gateway.store.create_user(name)
        await gateway.store.attach_policy("user", name, EVERYTHING)
    broken, _ = await key_of(gateway, "u")
    whole, _ = await key_of(gateway, "v")
    await gateway.kv.commit([], [Put(keys.identity_user("u"), b"\x09?"), generation()])
    await gateway.view.refresh()
    assert not knows(gateway.view, broken)
    assert may(gateway, whole, "s3:GetObject")


@pytest.mark.parametrize("what", ["group", "policy", "boundary", "document"])
async def test_what_cannot_be_read_never_allows(gateway: Gateway, what: str) -> None:
    store = gateway.store
    await store.create_user("u")
    await store.create_group("g")
    own = arn_of(await store.create_policy("own", allow("s3:*")))
    await store.attach_policy("user", "u", EVERYTHING)
    access_key, _ = await key_of(gateway)
    broken = Put(keys.identity_policy("own"), b"\x09?")
    match what:
        case "group":
            await store.add_user_to_group("g", "u")
            broken = Put(keys.identity_group("g"), b"\x09?")
        case "policy":
            await store.attach_policy("user", "u", own)
        case "boundary":
            await store.put_boundary("user", "u", own)
        case "document":
            await store.attach_policy("user", "u", own)
            (item,) = (await gateway.kv.get_many([broken.key])).items
            assert item is not None
            broken = Put(broken.key, item.value.replace(b"Allow", b"Maybe"))
    await gateway.view.refresh()
    assert may(gateway, access_key, "s3:GetObject")
    await gateway.kv.commit([], [broken, generation()])
    await gateway.view.refresh()
    assert not may(gateway, access_key, "s3:GetObject")


async def test_a_secret_sealed_by_another_store_is_no_secret(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    first, _ = await gateway.store.create_access_key("u")
    second, _ = await gateway.store.create_access_key("u")
    # Exchanged: each was sealed for its own key alone.
    (item,) = (await gateway.kv.get_many([keys.identity_key(first.access_key)])).items
    assert item is not None
    moved = item.value.replace(first.access_key.encode(), second.access_key.encode())
    await gateway.kv.commit([], [Put(keys.identity_key(second.access_key), moved), generation()])
    await gateway.view.refresh()
    assert knows(gateway.view, first.access_key)
    assert not knows(gateway.view, second.access_key)


async def test_secrets_are_in_no_record_and_no_text(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    access_key, secret = await key_of(gateway)
    gateway.view.identify(access_key, None)
    page = await gateway.kv.scan(b"\x00", b"\xff", limit=100)
    assert not any(secret.encode() in item.value for item in page.items)
    texts = [
        repr(gateway.view.known),
        repr(gateway.view._credentials),
        repr(await gateway.store.get_access_key(access_key)),
        repr(gateway.view._root),
    ]
    for text in texts:
        assert secret not in text
        assert ROOT.secret_key not in text


async def test_permissions_are_compiled_once(gateway: Gateway) -> None:
    await gateway.store.create_user("u")
    await gateway.store.attach_policy("user", "u", EVERYTHING)
    access_key, _ = await key_of(gateway)
    first, second = (gateway.view.identify(access_key, None)[1] for _ in range(2))
    assert first is second
    await gateway.store.create_user("v")
    await gateway.view.refresh()
    third = gateway.view.identify(access_key, None)[1]
    assert third.identity[0] is first.identity[0]


async def test_a_role_has_its_policies_and_boundary(gateway: Gateway) -> None:
    await gateway.store.create_role("r", trust({"AWS": "000000000000"}))
    await gateway.store.attach_policy("role", "r", READ_ONLY)
    await gateway.store.put_boundary("role", "r", EVERYTHING)
    await gateway.view.refresh()
    permissions = gateway.view.role_permissions(gateway.view.known.roles["r"])
    assert [policy.name for policy in permissions.identity] == [READ_ONLY]
    assert [policy.name for policy in permissions.boundary or ()] == [EVERYTHING]


def test_a_bucket_policy_names_a_user() -> None:
    policy = document(
        Principal={"AWS": "arn:aws:iam::000000000000:user/u"},
        Action="s3:GetObject",
        Resource=f"{BUCKET}/*",
    )
    (statement,) = parse_bucket_policy(policy.encode(), "b", limit=20_000).statements

    def match(name: str, path: str = "/") -> Match:
        who = user_principal(UserRecord(name, "AIDAX", path, 0))
        return statement.match(RequestContext(who, "s3:GetObject", f"{BUCKET}/k"))

    assert match("u") is Match.DIRECT
    assert match("U") is match("v") is match("u", "/staff/") is Match.NONE
