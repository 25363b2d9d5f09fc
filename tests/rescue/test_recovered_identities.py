"""What a recovery from the drives brings back of users and their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3gw.errors import InvalidAccessKeyId
from s3gw.identities.root import Root
from s3gw.identities.store import IdentityStore
from s3gw.identities.view import Identities
from s3gw.rescue.snapshot import take_snapshot
from tests.identities.policies import READ_ONLY
from tests.rescue.disks import put_on_disks, recovered
from tests.stores.memory_store import MemoryCluster, Process

ROOT = Root("ROOTACCESSKEY", "root-secret-key")


async def view_of(process: Process) -> Identities:
    view = Identities(process.kv, ROOT, process.storage.store.identity)
    await view.load()
    return view


def store_of(process: Process) -> IdentityStore:
    return IdentityStore(process.storage.store, process.storage.clock_ms)


async def test_users_and_policies_are_back_and_keys_work_once_they_are_rotated(
    memory_cluster: MemoryCluster, memory_store: Process, tmp_path: Path
) -> None:
    before = store_of(memory_store)
    await before.create_user("u")
    await before.attach_policy("user", "u", READ_ONLY)
    key, secret = await before.create_access_key("u")
    assert (await view_of(memory_store)).signing_secret(key.access_key, None) == secret
    await take_snapshot(memory_store.storage)
    result = await recovered(memory_cluster, put_on_disks(memory_cluster, tmp_path))
    after = store_of(result.process)
    assert (await after.get_user("u")).attached == (READ_ONLY,)
    assert (await after.list_access_keys("u"))[0].access_key == key.access_key
    with pytest.raises(InvalidAccessKeyId):
        (await view_of(result.process)).signing_secret(key.access_key, None)
    rotated, new_secret = await after.rotate_access_key(key.access_key)
    view = await view_of(result.process)
    assert view.signing_secret(rotated.access_key, None) == new_secret
    assert view.identify(rotated.access_key, None)[0].name == "u"
