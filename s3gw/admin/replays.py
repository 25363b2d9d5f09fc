"""Signatures of admin requests that were used, so that none is used again.

A signature of Version 4 stays good for 15 minutes before and after the time it names. Whoever has
seen a request could send it again meanwhile, and undo what came after it: drain, activate, and once
more the old drain. So each signature is a key of the metadata engine, made by the commit that only
one of all processes and gateways can win, before anything is done.

The keys end with a lease. One lease serves a process for `ROTATION_SECONDS`, so that a key lives at
least `LEASE_SECONDS - ROTATION_SECONDS`: twice the clock skew that is allowed, and a margin for
gateways whose clocks differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from s3gw.admin.port import Refusal
from s3gw.kv.interface import KV, At, Conflict, LeaseLost, Put
from s3gw.limits import CLOCK_SKEW_SECONDS_MAX
from s3gw.metadata import keys

ROTATION_SECONDS = CLOCK_SKEW_SECONDS_MAX
LEASE_SECONDS = ROTATION_SECONDS + 3 * CLOCK_SKEW_SECONDS_MAX


class UsedSignatures:
    """The memory of one process, shared with all others through `kv`."""

    def __init__(self, kv: KV, clock_ms: Callable[[], int]) -> None:
        self._kv = kv
        self._clock_ms = clock_ms
        self._lease = 0
        self._until_ms = 0

    async def use(self, signature: bytes) -> None:
        """Use a signature up. Raises Refusal when it was used before, EngineError (it may or may
        not be used up then: the next attempt needs a new one)."""
        key = keys.signed(hashlib.sha256(signature).digest())
        for last in (False, True):
            try:
                await self._kv.commit([At(key, 0)], [Put(key, b"", await self._present_lease())])
            except Conflict:
                raise Refusal(
                    403,
                    "RequestReplayed",
                    "a request with this signature was done already: sign each anew, with a random "
                    "header x-s3gw-nonce",
                ) from None
            except LeaseLost:
                self._lease = 0
                if last:
                    raise
            else:
                return

    async def _present_lease(self) -> int:
        now = self._clock_ms()
        # A clock that was set back must not keep a lease in use for longer than it lasts.
        left_ms = self._until_ms - now
        if not self._lease or not 0 < left_ms <= ROTATION_SECONDS * 1000:
            lease = await self._kv.grant_lease(LEASE_SECONDS)
            self._lease, self._until_ms = lease, now + ROTATION_SECONDS * 1000
        return self._lease
