"""What becomes of who asks between the authorization of a request and its commit.

As `test_decided_again`, but it is not the bucket that changes: a policy is detached, a key is
disabled, and this process has learned of it before the commit is decided on."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import md5

import pytest

from s3gw.identities.store import IdentityStore
from tests.iam.conftest import Keys
from tests.server.test_decided_again import (
    COMMIT,
    LOADED,
    WRITES,
    Ask,
    Gateway,
    changed,
    document,
    filled,
    ready,
    set_policy,
    statement,
)
from tests.stores import operations
from tests.stores.memory_store import BUCKET, MemoryCluster

ALL = {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"}
NOTHING = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
Meanwhile = Callable[[], Awaitable[object]]


@pytest.fixture
async def gateway(memory_cluster: MemoryCluster) -> Gateway:
    return await Gateway.open(memory_cluster)


def elsewhere(gateway: Gateway) -> IdentityStore:
    """Identities as another process changes them; this one learns of it at once."""
    store = gateway.other.storage.store
    return IdentityStore(store, gateway.port.clock_ms, gateway.port.view.refresh)


# The bucket has another record: what was decided on it is lost.
touch = set_policy(document(statement("Deny", "s3:PutBucketWebsite")))


async def answered(
    gateway: Gateway, name: str, keys: Keys, at: str, change: Meanwhile
) -> tuple[int, str]:
    ask = filled(WRITES[name], await ready(gateway))
    before = gateway.records()

    async def meanwhile() -> None:
        await change()
        if at == COMMIT:
            await touch(gateway.other)

    gateway.kv.watch_for(at, meanwhile)
    answer = await sent(gateway, ask, keys)
    assert gateway.kv.happened
    if answer[0] == 403 and at == LOADED:
        assert changed(gateway.records(), before) == set()
    return answer


async def sent(gateway: Gateway, ask: Ask, keys: Keys) -> tuple[int, str]:
    headers = {**ask.headers, "content-md5": b64encode(md5(ask.body).digest()).decode()}
    if not ask.body:
        del headers["content-md5"]
    answer = await gateway.port.send(ask.method, ask.target, ask.body, keys, headers=headers)
    return answer.status, answer.text("Code") if answer.status >= 400 else ""


@pytest.mark.parametrize("at", [LOADED, COMMIT])
@pytest.mark.parametrize("name", WRITES)
async def test_a_policy_that_is_detached_while_the_request_waits_allows_nothing_any_more(
    gateway: Gateway, name: str, at: str
) -> None:
    keys = await gateway.port.user("ann", ALL)
    ((policy, _),) = (await gateway.port.store.get_user("ann")).policies.items()

    async def change() -> None:
        await elsewhere(gateway).put_inline_policy(
            "user", "ann", policy, document(NOTHING).decode()
        )

    assert await answered(gateway, name, keys, at, change) == (403, "AccessDenied")


@pytest.mark.parametrize("at", [LOADED, COMMIT])
@pytest.mark.parametrize("name", ["PutObject of a large one", "DeleteObject", "UploadPart"])
async def test_a_key_that_is_disabled_while_the_request_waits_does_nothing_any_more(
    gateway: Gateway, name: str, at: str
) -> None:
    keys = await gateway.port.user("ann", ALL)

    async def change() -> None:
        await elsewhere(gateway).update_access_key(keys.access_key, "Inactive")

    assert await answered(gateway, name, keys, at, change) == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize("at", [LOADED, COMMIT])
async def test_identities_that_others_change_do_not_matter(gateway: Gateway, at: str) -> None:
    keys = await gateway.port.user("ann", ALL)

    async def change() -> None:
        store = elsewhere(gateway)
        await store.create_user("bob")
        await store.update_user("ann", new_name="eve")

    assert (await answered(gateway, "PutObject", keys, at, change))[0] == 200
    assert await operations.record(gateway.other, "new") is not None


async def test_a_session_that_ends_by_its_time_ends_no_request_that_had_begun(
    gateway: Gateway,
) -> None:
    keys = await gateway.port.user("ann", ALL)
    session = (await gateway.port.ask("GetSessionToken", keys, DurationSeconds="900")).keys

    async def change() -> None:
        gateway.port.ahead += 1000
        await elsewhere(gateway).create_user("bob")  # all is looked up anew

    assert (await answered(gateway, "PutObject", session, COMMIT, change))[0] == 200
    ask = Ask("PUT", f"/{BUCKET}/next", b"content")
    assert await sent(gateway, ask, session) == (400, "ExpiredToken")


async def test_a_key_that_is_disabled_deletes_none_of_many(gateway: Gateway) -> None:
    keys = await gateway.port.user("ann", ALL)
    await operations.put(gateway.other, "a", b"content")
    store = elsewhere(gateway)
    gateway.kv.watch_for(LOADED, lambda: store.update_access_key(keys.access_key, "Inactive"))
    body = b"<Delete><Object><Key>a</Key></Object></Delete>"
    headers = {"content-md5": b64encode(md5(body).digest()).decode()}
    answer = await gateway.port.send("POST", f"/{BUCKET}?delete=", body, keys, headers=headers)
    assert (answer.status, answer.text("Code")) == (200, "InvalidAccessKeyId")
    assert await operations.record(gateway.other, "a") is not None
