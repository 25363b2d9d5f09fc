"""Drives of this process that stop working count as down, as a node does whose lease ends.

Drives in the process have no lease. What tells of a lost one is its breaker: calls fail, and the
drive's figures (`stats`) cannot be read. A breaker that no call has closed for `DOWN_SECONDS` makes
the drive down: nothing is asked of it any more. One that says that its shards are gone (DriveLost)
is down at once: its directory may still take writes. It is up again when its figures could be read
for a while without a failure, at first `UP_SECONDS`; a drive that falls back soon has to wait twice
as long each time, so that one with a bad surface, whose figures can be read, does not flap.

`s3gw up` marks its nodes with it. A node server watches its own drives in the same way and
withdraws the registration of one that is down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from nodes.protocol import DriveError, DriveLost, DriveRefused
from s3gw.cluster.directory import Directory, Node

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
PROBE_SECONDS_MAX = 10.0
DOWN_SECONDS = 15.0
UP_SECONDS = 15.0
UP_SECONDS_MAX = 15 * 60.0
# A drive that worked for so many times as long as it had to wait is trusted as at first.
TRUSTED_FACTOR = 4

Report = Callable[[Node, bool], Awaitable[None]]
"""Told of a drive that went down (False) or came up (True)."""


class _Answer(Enum):
    """What a drive says of itself."""

    WELL = "well"
    NONE = "none"
    LOST = "lost"


@dataclass(slots=True)
class _State:
    """`since`: when it came up or went down; `well_since`: when its figures could first be read in
    an unbroken series, None when they could not; `wait_seconds`: how long that has, or had, to
    last (0 before the first time)."""

    up: bool
    since: float
    wait_seconds: float = 0.0
    well_since: float | None = None


async def mark(node: Node, up: bool) -> None:
    """Let the directory's node be up or down."""
    node.live = up


class DriveWatch:
    """Watches the drives of a directory. Its clock is the directory's."""

    def __init__(
        self,
        directory: Directory,
        report: Report = mark,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._report = report
        self._sleep = sleep
        self._states: dict[str, _State] = {}

    async def follow(self) -> None:
        """Probe all drives again and again, for ever."""
        while True:
            await self.probe()
            await self._sleep(PROBE_SECONDS)

    async def probe(self) -> None:
        """Ask every drive once, all at the same time."""
        await asyncio.gather(*(self._probe(node) for node in self._directory.all()))

    async def _probe(self, node: Node) -> None:
        answer, reason = await self._ask(node)
        well = answer is _Answer.WELL
        now = self._directory.clock()
        state = self._states.setdefault(node.id, _State(up=True, since=now))
        if not well:
            node.failed(now)
        if state.up:
            if answer is _Answer.LOST or node.failing_seconds(now) >= DOWN_SECONDS:
                log.warning("drive %s: %s", node.id, reason or "calls fail")
                await self._turn(node, state, now, up=False)
            return
        if not well:
            state.well_since = None
        elif state.well_since is None:
            state.well_since = now
        elif now - state.well_since >= state.wait_seconds:
            node.answered()
            await self._turn(node, state, now, up=True)

    async def _turn(self, node: Node, state: _State, now: float, *, up: bool) -> None:
        lasted = now - state.since
        if not up:
            trusted = lasted >= TRUSTED_FACTOR * state.wait_seconds
            state.wait_seconds = (
                UP_SECONDS if trusted else min(UP_SECONDS_MAX, 2 * state.wait_seconds)
            )
            state.well_since = None
        state.up, state.since = up, now
        log.warning("drive %s %s", node.id, "works again" if up else "does not work: it is down")
        await self._report(node, up)

    async def _ask(self, node: Node) -> tuple[_Answer, str]:
        """How the drive is, and what is wrong with it."""
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                stats = await node.drive.stats()
        except DriveLost as error:
            return _Answer.LOST, str(error)
        except (DriveError, DriveRefused, TimeoutError, OSError) as error:
            return _Answer.NONE, repr(error)
        if stats.drive_id not in ("", node.id):
            return _Answer.NONE, f"it answers as {stats.drive_id}"
        return _Answer.WELL, ""
