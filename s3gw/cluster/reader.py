"""Reading a blob: verified bytes, whatever up to `tolerance` nodes do.

A read goes in windows of a few stripes. For a window the reader asks the nodes of the data
fragments that the range needs, one request per node. Each block is verified before its use.
A fragment that is missing or damaged is an erasure: another shard is asked at once and the
stripes are decoded. A fragment that is late gets company:

* later than the p95 of its node: one more shard is asked, within a budget of 10 % extra reads;
* later than ten times that: it counts as missing, without budget.

The next window is fetched while the present one is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import inf

from erasure.codec import codec_of
from erasure.scheme import Scheme
from erasure.stripes import Geometry, StripePart
from nodes import format as shard_format
from nodes.protocol import Buffer, DriveError, DriveRefused, ShardMissing, ShardName
from s3gw.cluster.directory import Directory, Node
from s3gw.metadata.records import BlobRef

HEDGE_SECONDS_MIN = 0.02
OVERDUE_FACTOR = 10
BUDGET_SHARE = 0.1
BUDGET_MAX = 20.0
SLOW_FACTOR = 3.0
SLOW_SECONDS_MIN = 0.02
READ_SECONDS_MAX = 20.0
RANK_WORST = 3
# Larger than any average latency.
AWAY_SECONDS = READ_SECONDS_MAX

Damage = Callable[[BlobRef, int, str], None]


class BlobUnreadable(Exception):
    """Too few good shards could be read at the moment."""


class TooMuchDamage(BlobUnreadable):
    """Damaged fragments are among the reasons."""


class HedgeBudget:
    """Allows one extra read per ten: hedges must not double the load of a busy cluster."""

    def __init__(self) -> None:
        self._tokens = BUDGET_MAX
        self.hedges = 0

    def earned(self) -> None:
        self._tokens = min(BUDGET_MAX, self._tokens + BUDGET_SHARE)

    def take(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive stripes, with what is needed of each. `fragments` are the data fragments that
    all of them together need; each node is asked once for its blocks of all stripes."""

    parts: tuple[StripePart, ...]
    fragments: tuple[int, ...]


@dataclass(slots=True)
class Gathering:
    """What is known of one window while it is being read."""

    tasks: dict[asyncio.Task[list[memoryview]], int] = field(default_factory=dict)
    got: dict[int, list[memoryview]] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)
    damaged: bool = False


class BlobReader:
    """Reads ranges of one blob. `nodes[i]` holds shard i ("" = none); `holders_before[i]` are
    nodes that may hold it still while it moves."""

    def __init__(
        self,
        ref: BlobRef,
        pg: int,
        scheme: Scheme,
        stripe_bytes: int,
        nodes: Sequence[str],
        holders_before: Sequence[Sequence[str]],
        directory: Directory,
        executor: Executor,
        budget: HedgeBudget,
        damaged: Damage,
        *,
        zone: str = "",
    ) -> None:
        self._ref = ref
        self._pg = pg
        self._scheme = scheme
        self._nodes = nodes
        self._holders_before = holders_before
        self._directory = directory
        self._executor = executor
        self._budget = budget
        self._damaged = damaged
        self._zone = zone
        self._geometry = Geometry(scheme, stripe_bytes, ref.size)
        self._codec = codec_of(scheme)

    async def read(
        self, first: int, stop: int, window_stripes: int
    ) -> AsyncGenerator[list[Buffer], None]:
        """Bytes [first, stop) of the blob, as lists of buffers, one list per window.

        Raises BlobUnreadable.
        """
        windows = self._windows(first, stop, window_stripes)
        ahead: asyncio.Task[list[Buffer]] | None = None
        try:
            for number, window in enumerate(windows):
                buffers = await (ahead if ahead is not None else self._fetch(window))
                ahead = None
                if number + 1 < len(windows):
                    ahead = asyncio.create_task(self._fetch(windows[number + 1]))
                yield buffers
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    def _windows(self, first: int, stop: int, window_stripes: int) -> list[Window]:
        parts = list(self._geometry.parts(first, stop - 1))
        windows = []
        for row in range(0, len(parts), window_stripes):
            group = tuple(parts[row : row + window_stripes])
            needed = sorted({index for part in group for index in part.fragments})
            windows.append(Window(group, tuple(needed)))
        return windows

    async def _fetch(self, window: Window) -> list[Buffer]:
        """The window's bytes of the range.

        Shards that are damaged in different stripes are erasures of those stripes alone: a window
        that cannot be read as a whole for damage is read stripe by stripe.
        """
        try:
            got = await self._gather(window)
        except TooMuchDamage:
            if len(window.parts) == 1:
                raise
            fetched = [
                await self._fetch(Window((part,), tuple(part.fragments))) for part in window.parts
            ]
            return [buffer for buffers in fetched for buffer in buffers]
        if all(index in got for index in window.fragments) or self._scheme.data == 1:
            return self._decode(window, got)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._decode, window, got)

    def _decode(self, window: Window, got: dict[int, list[memoryview]]) -> list[Buffer]:
        buffers: list[Buffer] = []
        for row, part in enumerate(window.parts):
            fragments = {index: payloads[row] for index, payloads in got.items()}
            buffers += self._codec.decode(fragments, part.stripe_length, part.start, part.stop)
        return buffers

    async def _gather(self, window: Window) -> dict[int, list[memoryview]]:
        """Enough verified fragments for every stripe of the window, by shard index."""
        state = Gathering()
        for index in self._first_choice(window):
            self._ask(state, index, window)
        clock = self._directory.clock
        started = clock()
        hedge_at, overdue_at = self._deadlines(state)
        try:
            while not self._enough(state, window):
                self._replace_failed(state, window)
                if not state.tasks:
                    kind = TooMuchDamage if state.damaged else BlobUnreadable
                    raise kind(f"{len(state.got)} good shards of {len(self._nodes)}")
                wait = None if hedge_at == inf else max(0.0, hedge_at - (clock() - started))
                done, _ = await asyncio.wait(
                    state.tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                self._collect(state, done)
                elapsed = clock() - started
                if not done and elapsed >= hedge_at:
                    free = elapsed >= overdue_at
                    if free or self._budget.take():
                        self._hedge(state, window, everything=free)
                    hedge_at = inf if free else overdue_at  # each read has its own deadline
        finally:
            for task in state.tasks:
                task.cancel()
        return state.got

    def _first_choice(self, window: Window) -> Sequence[int]:
        """The data fragments that are needed when their nodes are well, else a set that decodes,
        of the shards that promise to be there first."""
        everything = range(self._scheme.width)
        return self._choose(everything, window) or sorted(everything, key=self._rank)

    def _choose(self, candidates: Iterable[int], window: Window) -> list[int] | None:
        """The fewest of some shards that give the window's fragments, of those that promise to be
        there first; None when they do not suffice."""
        ranks = {index: self._rank(index) for index in candidates}
        order = sorted(ranks, key=lambda index: ranks[index])
        for worst in range(RANK_WORST + 1):
            well = [index for index in order if ranks[index][0] <= worst]
            chosen = self._scheme.minimal_read(well, window.fragments)
            if chosen is not None:
                return chosen
        return None

    def _rank(self, index: int) -> tuple[int, float]:
        """Smaller is better: nodes that are well in order of index, slow ones, then the rest."""
        node = self._directory.get(self._nodes[index])
        if node is None or not node.live:
            return RANK_WORST, 0.0
        if not node.usable(self._directory.clock()):
            return 2, 0.0
        average = node.latency.average
        if average > SLOW_SECONDS_MIN and average > SLOW_FACTOR * self._typical():
            return 1, average
        # Of those that are well the ones in the own zone come first: others are farther away, and
        # a latency much above the usual has its own rank.
        away = self._zone != "" and node.zone != self._zone
        if self._scheme.data == 1:
            return 0, average + away * AWAY_SECONDS
        return 0, float(index + away * self._scheme.width)

    def _typical(self) -> float:
        """The median of the nodes' average latencies."""
        averages = sorted(
            node.latency.average
            for node in (self._directory.get(node_id) for node_id in self._nodes)
            if node is not None
        )
        return averages[len(averages) // 2] if averages else 0.0

    def _ask(self, state: Gathering, index: int, window: Window) -> None:
        state.tried.add(index)
        self._budget.earned()
        task = asyncio.create_task(self._read_shard(index, window))
        state.tasks[task] = index

    def _deadlines(self, state: Gathering) -> tuple[float, float]:
        """Seconds after which to hedge, and after which to count the late ones as missing."""
        p95 = HEDGE_SECONDS_MIN
        for index in state.tried:
            node = self._directory.get(self._nodes[index])
            if node is not None:
                p95 = max(p95, min(node.latency.p95, self._typical() * OVERDUE_FACTOR))
        return p95, p95 * OVERDUE_FACTOR

    def _enough(self, state: Gathering, window: Window) -> bool:
        return self._scheme.minimal_read(list(state.got), window.fragments) is not None

    def _collect(self, state: Gathering, done: set[asyncio.Task[list[memoryview]]]) -> None:
        for task in done:
            index = state.tasks.pop(task)
            error = task.exception()
            if error is None:
                state.got[index] = task.result()
            elif not isinstance(
                error, (DriveError, DriveRefused, ShardMissing, shard_format.ShardCorrupt)
            ):
                raise error
            else:
                state.damaged |= isinstance(error, shard_format.ShardCorrupt)

    def _replace_failed(self, state: Gathering, window: Window) -> None:
        """Ask more shards until what came and what is on its way would do."""
        pending = set(state.tasks.values()) | set(state.got)
        if self._scheme.minimal_read(list(pending), window.fragments) is not None:
            return
        untried = [index for index in range(self._scheme.width) if index not in state.tried]
        for index in self._choose([*pending, *untried], window) or untried:
            if index not in state.tried:
                self._ask(state, index, window)

    def _hedge(self, state: Gathering, window: Window, *, everything: bool) -> None:
        """Ask one more shard, or as many as make up for all that are late."""
        untried = [index for index in range(self._scheme.width) if index not in state.tried]
        untried.sort(key=self._rank)
        if self._scheme.data > 1 and len(window.fragments) < self._scheme.data:
            # a single late fragment of a short range is worth a whole set that gives it
            chosen = self._choose([*state.got, *untried], window) or untried
        else:
            chosen = untried[: len(state.tasks) if everything else 1]
        for index in chosen:
            if index not in state.tried:
                self._ask(state, index, window)
                self._budget.hedges += 1

    async def _read_shard(self, index: int, window: Window) -> list[memoryview]:
        """The verified payloads of one shard's blocks, one per stripe of the window."""
        name = ShardName(self._ref.profile, self._pg, self._ref.blob, index)
        first = window.parts[0].stripe
        lengths = [self._scheme.fragment_bytes(part.stripe_length) for part in window.parts]
        offset = shard_format.block_offset(self._geometry.block_bytes, first)
        total = sum(lengths) + len(lengths) * shard_format.CHECKSUM_BYTES
        try:
            data = await self._read_somewhere(index, name, offset, total)
            return open_blocks(name, first, lengths, data)
        except (ShardMissing, shard_format.ShardCorrupt) as error:
            self._damaged(self._ref, index, str(error))
            raise

    async def _read_somewhere(self, index: int, name: ShardName, offset: int, total: int) -> bytes:
        """From the slot's node, or from who held the shard before it began to move. It counts as
        missing only when all of them say so."""
        trouble: DriveError | None = None
        for node_id in (self._nodes[index], *self._holders_before[index]):
            node = self._directory.get(node_id)
            if node is None:
                trouble = DriveError(f"node {node_id!r} is not there")
                continue
            try:
                return await self._timed_read(node, name, offset, total)
            except DriveError as error:
                trouble = error
            except ShardMissing:
                continue
        raise trouble or ShardMissing(str(name))

    async def _timed_read(self, node: Node, name: ShardName, offset: int, total: int) -> bytes:
        clock = self._directory.clock
        started = clock()
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                data = await node.drive.read(name, offset, total)
        except (DriveError, TimeoutError) as error:
            node.failed(clock())
            raise DriveError(str(error)) from error
        except asyncio.CancelledError:
            node.latency.record(clock() - started)
            raise
        node.answered()
        node.latency.record(clock() - started)
        return data


def open_blocks(
    name: ShardName, first: int, lengths: Sequence[int], data: Buffer
) -> list[memoryview]:
    """Verify consecutive blocks as read; their payloads. Raises ShardCorrupt."""
    view = memoryview(data)
    payloads = []
    position = 0
    for number, length in enumerate(lengths, first):
        end = position + length + shard_format.CHECKSUM_BYTES
        payload = shard_format.open_block(name, number, view[position:end])
        if len(payload) != length:
            raise shard_format.ShardCorrupt(f"block {number} is cut")
        payloads.append(payload)
        position = end
    return payloads
