"""Two gateways change identities at once, and answers get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from s3gw.identities.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
)
from s3gw.identities.managed import arn_of
from s3gw.kv.interface import Put
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.metadata import keys, store
from s3gw.metadata.store import OutcomeUnknown
from tests.identities.conftest import Clock, Gateway, make_gateway
from tests.identities.policies import allow, trust
from tests.stores.crashing_kv import CrashingKV, Fuse, Mode

RACERS = 8
Pair = tuple[Gateway, Gateway]


async def outcomes(*attempts: Awaitable[Any]) -> list[Any]:
    """What each of these comes to when they run at once: its answer, or its error."""
    return await asyncio.gather(*attempts, return_exceptions=True)


async def test_one_of_many_creators_of_a_name_wins(gateways: Pair) -> None:
    names = ["Alice", "alice", "ALICE", "aLICE"] * 2
    found = await outcomes(
        *(gateways[n % 2].store.create_user(name) for n, name in enumerate(names))
    )
    refused = [each for each in found if isinstance(each, EntityAlreadyExists)]
    assert len(refused) == len(names) - 1
    (winner,) = [each for each in found if each not in refused]
    assert await gateways[0].store.list_users() == [winner]


async def test_many_changes_at_once_all_happen(gateways: Pair) -> None:
    await gateways[0].store.create_user("u")
    found = await outcomes(
        *(gateways[n % 2].store.create_service_account("u") for n in range(40)),
    )
    assert {type(each) for each in found} == {tuple}
    assert len((await gateways[0].store.get_user("u")).service_accounts) == 40


async def test_racing_requests_do_not_give_a_user_a_third_key(gateways: Pair) -> None:
    await gateways[0].store.create_user("u")
    found = await outcomes(*(gateways[n % 2].store.create_access_key("u") for n in range(RACERS)))
    made = {each[0].access_key for each in found if isinstance(each, tuple)}
    assert len(made) == 2
    assert [type(each) for each in found if not isinstance(each, tuple)] == [LimitExceeded] * 6
    held = await gateways[1].store.list_access_keys("u")
    assert {key.access_key for key in held} == made
    assert set((await gateways[0].store.get_user("u")).access_keys) == made


async def test_a_policy_is_not_deleted_while_it_is_attached(gateways: Pair) -> None:
    first, second = gateways[0].store, gateways[1].store
    for number in range(RACERS):
        await first.create_user(f"u{number}")
        arn = arn_of(await first.create_policy(f"p{number}", allow("s3:*")))
        attached, deleted = await outcomes(
            first.attach_policy("user", f"u{number}", arn), second.delete_policy(arn)
        )
        if deleted is None:
            assert isinstance(attached, NoSuchEntity)
            assert (await first.get_user(f"u{number}")).attached == ()
        else:
            assert isinstance(deleted, DeleteConflict)
            assert attached is None
            await first.get_policy(arn)


async def test_a_user_that_is_deleted_gets_no_key(gateways: Pair) -> None:
    first, second = gateways[0].store, gateways[1].store
    for number in range(RACERS):
        await first.create_user(f"u{number}")
        made, deleted = await outcomes(
            first.create_access_key(f"u{number}"), second.delete_user(f"u{number}")
        )
        assert (deleted is None) == isinstance(made, NoSuchEntity)
        assert (deleted is None) or isinstance(deleted, DeleteConflict)
    users = {user.name for user in await first.list_users()}
    assert {key.user for key in await first.list_all_access_keys()} <= users


async def test_a_user_who_is_made_again_meanwhile_is_not_the_one_who_was_trusted(
    gateways: Pair,
) -> None:
    """The id beside a trust policy is one that the name had while nobody else changed it."""
    first, second = gateways[0].store, gateways[1].store

    async def made_again(name: str) -> list[str]:
        ids = [(await second.get_user(name)).user_id]
        for _ in range(3):
            await second.delete_user(name)
            ids.append((await second.create_user(name)).user_id)
        return ids

    for number in range(RACERS):
        arn = f"arn:aws:iam::000000000000:user/u{number}"
        await first.create_user(f"u{number}")
        role, ids = await outcomes(
            first.create_role(f"r{number}", trust({"AWS": arn})), made_again(f"u{number}")
        )
        if isinstance(role, MalformedPolicyDocument):  # asked while there was none
            assert [each.name for each in await first.list_roles()].count(f"r{number}") == 0
            continue
        assert role == await second.get_role(f"r{number}")
        assert set(role.principals) == {arn}
        assert role.principals[arn] in ids
        shown = await second.shown_role(f"r{number}")
        assert (shown.trust == role.trust) == (role.principals[arn] == ids[-1])


async def test_a_group_with_members_is_not_deleted(gateways: Pair) -> None:
    first, second = gateways[0].store, gateways[1].store
    await first.create_user("u")
    for number in range(RACERS):
        await first.create_group(f"g{number}")
        added, deleted = await outcomes(
            first.add_user_to_group(f"g{number}", "u"), second.delete_group(f"g{number}")
        )
        assert (deleted is None) == isinstance(added, NoSuchEntity)
    groups = {group.name for group in await first.list_groups()}
    assert set((await first.get_user("u")).groups) == groups


async def lossy(fuse: Fuse) -> Gateway:
    return await make_gateway(CrashingKV(MemoryKV(MemoryStore()), fuse), Clock())


async def test_an_answer_that_is_lost_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RESEND_PAUSE_SECONDS", 0.0)
    fuse = Fuse()
    gateway = await lossy(fuse)
    await gateway.store.create_user("u")
    for mode in (Mode.LOSE_BEFORE, Mode.LOSE_AFTER):
        fuse.arm(0, mode)
        record, _ = await gateway.store.create_access_key("u")
        assert record.access_key in (await gateway.store.get_user("u")).access_keys
    assert len(await gateway.store.list_access_keys("u")) == 2


class Overtaken(MemoryKV):
    """An engine that loses the answer of a commit, after which somebody else changes identities."""

    losing = False

    async def commit(self, guards: Any, writes: Any) -> int:
        revision = await super().commit(guards, writes)
        if self.losing:
            self.losing = False
            await super().commit([], [Put(keys.IDENTITY_GENERATION, b"another")])
            raise store.Unavailable("the answer is lost")
        return revision


async def test_an_outcome_that_cannot_be_known_is_said_and_nothing_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "RESEND_PAUSE_SECONDS", 0.0)
    kv = Overtaken(MemoryStore())
    gateway = await make_gateway(kv, Clock())
    await gateway.store.create_user("u")
    kv.losing = True
    with pytest.raises(OutcomeUnknown):
        await gateway.store.create_access_key("u")
    assert len(await gateway.store.list_access_keys("u")) == 1


@pytest.mark.parametrize("mode", [Mode.DIE_BEFORE, Mode.DIE_AFTER])
async def test_a_crash_leaves_all_of_a_change_or_nothing(mode: Mode) -> None:
    data, fuse = MemoryStore(), Fuse()
    dying = await make_gateway(CrashingKV(MemoryKV(data), fuse), Clock())
    await dying.store.create_user("u")
    fuse.arm(0, mode)
    with pytest.raises(Exception):  # noqa: B017 (the process is dead, whatever it says)
        await dying.store.create_access_key("u")
    other = await make_gateway(MemoryKV(data), Clock())
    held = (await other.store.get_user("u")).access_keys
    assert [key.access_key for key in await other.store.list_all_access_keys()] == list(held)
    assert len(held) == (1 if mode is Mode.DIE_AFTER else 0)
    assert set(other.view.known.keys) == set(held)
