"""The faults of a simulation, drawn from its seed: one begins every few seconds, lasts for a while,
and may come on top of others.

What lies within the promise is done without mercy: any number of machines may be down or cut off
for a while. What would destroy data for good, because more shards of one blob are damaged than its
scheme bears, is not: `_bearable` says what may be damaged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from random import Random

from nodes.protocol import ShardName
from s3gw.cluster import layouts
from s3gw.cluster.epochs import ACTIVE, CORDONED, DRAINING, OUT
from s3gw.workers import on_demand, reprofile
from tests.simulation import etcd as simulated_etcd
from tests.simulation.checks import Look
from tests.simulation.clients import BUCKET
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.gateways import EXPECTED, SimulatedGateway
from tests.simulation.machines import Network
from tests.simulation.nodes import DISK_SECONDS, POWER_SECONDS_MAX, SLOW_FACTOR, SimulatedNode
from tests.simulation.trace import Trace

PAUSE_SECONDS = 3.0
LASTS_SECONDS = 12.0
CLOCK_SECONDS_MAX = 3600.0


class Faults:
    """Draws and does faults until told to stop; `heal` ends them all."""

    def __init__(
        self,
        network: Network,
        etcd: SimulatedEtcd,
        nodes: MutableMapping[str, SimulatedNode],
        gateways: Sequence[SimulatedGateway],
        chance: Random,
        trace: Trace,
        look: Callable[[], Awaitable[Look]],
        profile: str,
    ) -> None:
        """`look` sees the whole store; `profile` is another one that the bucket may move to."""
        self._network = network
        self._etcd = etcd
        self._nodes = nodes
        self._gateways = gateways
        self._chance = chance
        self._trace = trace
        self._look = look
        self._profile = profile
        self._retired: str = ""
        self._ends: set[asyncio.Task[None]] = set()
        self._kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_gateway, 4),
            (self._cut_power, 6),
            (self._partition, 6),
            (self._lossy, 3),
            (self._slow_disk, 3),
            (self._hang_disk, 2),
            (self._fill_disk, 2),
            (self._failing_sectors, 2),
            (self._rot, 4),
            (self._lose_files, 2),
            (self._jump_clock, 3),
            (self._end_lease, 3),
            (self._stop_etcd, 2),
            (self._compact, 1),
            (self._retire, 1),
            (self._change_layout, 5),
            (self._move_bucket, 1),
            (self._work, 2),
        ]

    async def run(self, until: float) -> None:
        clock = asyncio.get_running_loop().time
        kinds = [kind for kind, _ in self._kinds]
        weights = [weight for _, weight in self._kinds]
        while clock() < until:
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_SECONDS))
            await self._chance.choices(kinds, weights)[0]()

    def _say(self, *what: object) -> None:
        self._trace.note("fault", *what)

    def _for_a_while(self, end: Callable[[], object]) -> None:
        """Have a fault end later."""

        async def later() -> None:
            await asyncio.sleep(self._chance.expovariate(1 / LASTS_SECONDS))
            end()

        task = asyncio.get_running_loop().create_task(later())
        self._ends.add(task)

    async def heal(self) -> None:
        """End everything that is still wrong."""
        for task in self._ends:
            task.cancel()
        await asyncio.sleep(2 * POWER_SECONDS_MAX)
        self._say("over")
        self._network.cut.clear()
        self._network.slow.clear()
        self._network.loss = 0.0
        if not self._network.machines[simulated_etcd.NAME].alive:
            self._etcd.start()
        for node in self._nodes.values():
            node.disk.full, node.disk.failing = False, 0.0
            if node.up:
                node.executor.go_on()
            else:
                node.start()
        for gateway in self._gateways:
            if not gateway.up:
                gateway.start()

    # Machines

    def _node(self) -> SimulatedNode:
        return self._nodes[self._chance.choice(list(self._nodes))]

    async def _kill_gateway(self) -> None:
        gateway = self._chance.choice(self._gateways)
        if gateway.up:
            gateway.kill()
            self._for_a_while(lambda: gateway.up or gateway.start())

    async def _cut_power(self) -> None:
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            node = self._node()
            if node.up:
                self._say("power", node.name)
                node.cut_power()
                self._for_a_while(lambda node=node: self._power_back(node))  # type: ignore[misc]

    def _power_back(self, node: SimulatedNode) -> None:
        if not node.up and node.name in self._nodes:
            node.start()

    async def _stop_etcd(self) -> None:
        if self._network.machines[simulated_etcd.NAME].alive:
            self._say("etcd is away")
            self._etcd.stop()
            self._for_a_while(self._etcd_back)

    def _etcd_back(self) -> None:
        if not self._network.machines[simulated_etcd.NAME].alive:
            self._say("etcd is back")
            self._etcd.start()

    # The network

    async def _partition(self) -> None:
        names = [*self._nodes, *(gateway.name for gateway in self._gateways)]
        one = self._chance.choice(names)
        others = self._chance.sample([*names, simulated_etcd.NAME], self._chance.randint(1, 4))
        both = self._chance.random() < 0.6
        before = set(self._network.cut)
        for other in others:
            self._network.cut_between(one, other, both=both)
        self._say("cut", one, others, both)
        made = self._network.cut - before
        self._for_a_while(lambda: self._network.cut.difference_update(made))

    async def _lossy(self) -> None:
        self._network.loss = self._chance.choice((0.01, 0.05, 0.2))
        slow = self._chance.sample(list(self._nodes), 1)[0]
        self._network.slow[slow] = self._chance.uniform(0.01, 5)
        self._say("loss", self._network.loss, slow)

        def end() -> None:
            self._network.loss = 0.0
            self._network.slow.pop(slow, None)

        self._for_a_while(end)

    # Disks

    async def _slow_disk(self) -> None:
        node = self._node()
        if node.up:
            self._say("slow", node.name)
            node.executor.seconds = DISK_SECONDS * SLOW_FACTOR
            self._for_a_while(lambda: node.executor.go_on())

    async def _hang_disk(self) -> None:
        node = self._node()
        if node.up:
            self._say("hangs", node.name)
            node.executor.hangs = True
            self._for_a_while(lambda: node.executor.go_on())

    async def _fill_disk(self) -> None:
        node = self._node()
        self._say("full", node.name)
        node.disk.full = True
        self._for_a_while(lambda: setattr(node.disk, "full", False))

    async def _failing_sectors(self) -> None:
        node = self._node()
        self._say("failing", node.name)
        node.disk.failing = self._chance.choice((0.1, 1.0))
        self._for_a_while(lambda: setattr(node.disk, "failing", 0.0))

    async def _rot(self) -> None:
        """Flip a bit in some shards."""
        node = self._node()
        damaged = await self._bearable(node)
        self._say("rot", node.name, len(damaged))
        files = node.disk.shard_files()
        for name in damaged:
            file = files[name]
            place, bit = self._chance.randrange(len(file.seen)), 1 << self._chance.randrange(8)
            file.seen[place] ^= bit
            file.stored = bytes(file.seen)

    async def _lose_files(self) -> None:
        """Shard files are gone, or cut short."""
        node = self._node()
        damaged = await self._bearable(node)
        self._say("lose", node.name, len(damaged))
        files = node.disk.shard_files()
        for name in damaged:
            if self._chance.random() < 0.5:
                node.disk.lose(name)
            else:
                file = files[name]
                del file.seen[self._chance.randrange(len(file.seen)) :]
                file.stored = bytes(file.seen)

    async def _retire(self) -> None:
        """A machine burns down; at most once, and only if every blob bears it."""
        node = self._node()
        seen = await self._look()
        width = max(profile.scheme.width for profile in seen.topology.profiles())
        if self._retired or not node.up or len(self._nodes) <= width + 1:
            return
        for ref in seen.audit.held().values():
            scheme, _, _ = seen.topology.location(ref)
            left = [i for i, there in seen.good(ref).items() if set(there) - {node.name}]
            if len(left) <= scheme.width - scheme.tolerance:
                return
        self._say("retire", node.name)
        self._retired = node.name
        self._network.kill(node.name)
        del self._nodes[node.name]

    async def _bearable(self, node: SimulatedNode) -> list[ShardName]:
        """Shards on a node that may be damaged: of blobs of which all shards are whole, but for one
        at most where the scheme bears two."""
        seen = await self._look()
        share = self._chance.choice((0.1, 0.5, 1.0))
        found = set()
        for ref in seen.audit.held().values():
            scheme, _, group = seen.topology.location(ref)
            good = seen.good(ref)
            if len(good) <= scheme.width - scheme.tolerance:
                continue
            for index, there in good.items():
                name = ShardName(ref.profile, group.number, ref.blob, index)
                if node.name in there and self._chance.random() < share:
                    found.add(name)
        return sorted(found, key=str)

    # Time, leases and the engine

    async def _jump_clock(self) -> None:
        gateway = self._chance.choice(self._gateways)
        offset = self._chance.uniform(-CLOCK_SECONDS_MAX, CLOCK_SECONDS_MAX)
        self._say("clock", gateway.name, round(offset))
        gateway.machine.wall_offset = offset

    async def _end_lease(self) -> None:
        leases = list(self._etcd.store.leases)
        if leases:
            lease = self._chance.choice(leases)
            self._say("lease", lease)
            self._etcd.store.end_lease(lease)

    async def _compact(self) -> None:
        self._say("compact")
        await self._etcd.engine.compact(self._etcd.store.revision)

    # What operators do

    async def _with_gateway(self, work: Callable[[SimulatedGateway], Awaitable[object]]) -> None:
        """Have something done on a gateway, as long as that lives."""
        gateway = self._chance.choice(self._gateways)
        if gateway.storage is None:
            return

        async def attempt() -> None:
            try:
                await work(gateway)
            except EXPECTED as error:
                self._say("gave up", type(error).__name__)

        gateway.machine.spawn(attempt())

    async def _change_layout(self) -> None:
        await self._with_gateway(self._change)

    async def _change(self, gateway: SimulatedGateway) -> None:
        assert gateway.storage is not None
        kv = gateway.storage.store.kv
        layout = await layouts.current(kv)
        registered = await layouts.registered(kv)
        new = sorted(registered - {node.node for node in layout.record.nodes})
        change: layouts.Change
        if new and self._chance.random() < 0.7:
            name = self._chance.choice(new)
            if name not in self._nodes:
                return
            change = layouts.Add(name, self._nodes[name].zone, 1, name)
        else:
            node = self._chance.choice(layout.record.nodes)
            state = self._chance.choice((ACTIVE, ACTIVE, CORDONED, DRAINING))
            if node.state == state or node.state == OUT:
                state = ACTIVE
            change = layouts.SetState(node.node, state)
        self._say("layout", change)
        await self._apply(gateway, layout, [change])

    async def _apply(
        self, gateway: SimulatedGateway, layout: layouts.Layout, changes: Sequence[layouts.Change]
    ) -> None:
        assert gateway.storage is not None
        await layouts.apply(
            gateway.storage.store.kv,
            gateway.storage.blobs.topology,
            layouts.changed(layout.record.nodes, changes),
            reason="simulated",
            now_ms=0,
            expected_epoch=layout.epoch,
        )

    async def restore_layout(self, gateway: SimulatedGateway) -> None:
        """Make all nodes active again; spare ones take the place of one that burned down. Raises
        what may fail for a while."""
        assert gateway.storage is not None
        kv = gateway.storage.store.kv
        layout = await layouts.current(kv)
        changes: list[layouts.Change] = [
            layouts.SetState(node.node, ACTIVE)
            for node in layout.record.nodes
            if node.state in (CORDONED, DRAINING)
        ]
        if self._retired:
            new = await layouts.registered(kv) - {node.node for node in layout.record.nodes}
            changes += [layouts.Add(n, self._nodes[n].zone, 1, n) for n in sorted(new)]
        if changes:
            await self._apply(gateway, layout, changes)

    async def strike_off(self, gateway: SimulatedGateway) -> None:
        """Strike off the node that burned down, once nothing counts on it. Raises as above."""
        assert gateway.storage is not None
        layout = await layouts.current(gateway.storage.store.kv)
        if layout.node(self._retired) is not None:
            await self._apply(gateway, layout, [layouts.Remove(self._retired)])

    async def _move_bucket(self) -> None:
        """Have the bucket go over to the other profile."""

        async def move(gateway: SimulatedGateway) -> None:
            assert gateway.storage is not None
            self._say("profile", self._profile)
            await reprofile.start(gateway.storage.store.kv, BUCKET, self._profile)

        await self._with_gateway(move)

    async def _work(self) -> None:
        """What an operator may ask for at any time, beside the workers."""

        async def work(gateway: SimulatedGateway) -> None:
            storage = gateway.storage
            assert storage is not None
            self._say("on demand", gateway.name)
            await on_demand.verify_all(storage)
            await on_demand.repair_all(storage)
            await on_demand.collect_garbage(storage)

        await self._with_gateway(work)
