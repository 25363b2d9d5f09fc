"""Bodies on a profile whose stripes are as small as a profile may have them: of the very size up to
which a blob is a small one."""

from __future__ import annotations

import random

import pytest

from s3gw import limits
from tests.stores.audit import Audit
from tests.stores.memory_store import PROFILE, MemoryCluster
from tests.stores.operations import blob_of, get, put

STRIPE = limits.SMALL_BLOB_BYTES_MAX


@pytest.mark.parametrize("size", [STRIPE - 1, STRIPE, STRIPE + 1, 2 * STRIPE, 2 * STRIPE + 7])
async def test_a_body_that_ends_near_a_stripe_is_stored_whole(size: int) -> None:
    cluster = MemoryCluster()
    await cluster.found(stripe_bytes=STRIPE)
    process = await cluster.process()
    body = random.Random(size).randbytes(size)
    await put(process, "key", body)
    assert await get(process, "key") == body
    small = size <= limits.SMALL_BLOB_BYTES_MAX
    assert ((await blob_of(process, "key")).profile != PROFILE) is small
    Audit(cluster, process).check_held()
