"""One run: a store, its clients and its faults, from one seed.

The store is founded and fills while all is well; then faults come, one after the other, under load;
then all is made well and the store must heal: everything reads as the history of all clients
demands, the ledger says healed, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextvars import copy_context
from dataclasses import dataclass, field
from random import Random

from erasure.scheme import Scheme
from s3gw import limits
from s3gw.cluster import layouts
from s3gw.cluster.founding import Founder, found_layout, found_store, profile_name
from s3gw.cluster.ledger import read_ledger
from s3gw.cluster.profiles import create_profile
from s3gw.cluster.topology import Topology
from s3gw.cluster.tunables import LiveTunables
from s3gw.metadata import keys
from s3gw.metadata.counters import Counters
from s3gw.metadata.records import BucketRecord
from s3gw.metadata.store import Store, Transaction
from s3gw.workers import on_demand
from tests.faults.checker import violations
from tests.faults.history import History
from tests.simulation import determinism
from tests.simulation.checks import Look, look
from tests.simulation.clients import BUCKET, Client
from tests.simulation.etcd import SimulatedEtcd
from tests.simulation.faults import Faults
from tests.simulation.gateways import (
    EXPECTED,
    WRITE_AGE_SECONDS,
    SimulatedGateway,
    Unforeseen,
)
from tests.simulation.loop import NothingLeft, SimulatedLoop
from tests.simulation.machines import Network, here, is_dead
from tests.simulation.nodes import SimulatedNode
from tests.simulation.trace import Trace

# Scheme, nodes in the first layout, nodes that may be added.
SHAPES = (("2+1", 4, 1), ("2+2", 5, 1), ("4+2", 7, 1), ("4+2", 6, 2), ("2+2", 7, 0))
# The profile that an operator may move the bucket to.
OTHER_PROFILE, OTHER_SCHEME = "other", "1+2"
VERSIONED_SHARE = 0.3
PG_COUNT = 4
STRIPE_BYTES = 64 * 1024
CLIENTS = 5
KEYS = 6
CALM_SECONDS = 5.0
CHAOS_SECONDS = 60.0
LOOK_SECONDS = 8.0
HEALING_ROUNDS = 40
HEALING_SECONDS = 15.0
# After so many rounds nothing waits for its time any more: for a day, or for another attempt.
EARLY_ROUNDS = 3
DAYS_SECONDS = 3 * 24 * 3600.0
RETRY_SECONDS = 3700.0
TUNABLES = {
    "rebuild_after_seconds": 15,
    "hold_down_seconds": 10,
    "scrub_interval_seconds": 60,
}


@dataclass
class Result:
    """What came of a run: the digest of its trace, what was wrong, and how much was done."""

    seed: int
    digest: str
    wrong: list[str]
    events: int
    operations: int
    answered: int
    seconds: float
    lines: list[str] = field(default_factory=list)


class Simulation:
    """A run in the making; also what clocks and randomness ask (tests.simulation.determinism)."""

    def __init__(self, seed: int, *, keep: bool = False, chaos: float = CHAOS_SECONDS) -> None:
        self.seed = seed
        self.chance = self._chance("world")
        self._entropy = self._chance("entropy")
        self._chaos = chaos
        self.loop = SimulatedLoop(self._chance("order"), is_dead)
        self.trace = Trace(self.loop.time, keep=keep)
        self.network = Network(self.loop, self._chance("network"))
        self.history = History()
        self.nodes: dict[str, SimulatedNode] = {}
        self.gateways: list[SimulatedGateway] = []
        self.etcd: SimulatedEtcd
        self.store: Store

    def _chance(self, what: str) -> Random:
        return Random(f"{self.seed}/{what}")

    def now(self) -> float:
        return self.loop.seconds

    def wall_offset(self) -> float:
        machine = here()
        return machine.wall_offset if machine is not None else 0.0

    def entropy(self, count: int) -> bytes:
        return self._entropy.randbytes(count)

    async def main(self) -> None:
        await self._found()
        clock, chaos = self.loop.time, self._faults()
        clients = [self._client(f"client-{number}") for number in range(CLIENTS)]
        begin = clock() + CALM_SECONDS
        end = begin + self._chaos
        load = [self.loop.create_task(client.run(end)) for client in clients]
        await asyncio.sleep(CALM_SECONDS)
        looking = self.loop.create_task(self._keep_looking())
        await chaos.run(end)
        await chaos.heal()
        await asyncio.gather(*load)
        looking.cancel()
        await self._read_all()
        await self._until_healed(chaos)
        await self._read_all()

    async def _found(self) -> None:
        scheme, members, spares = self.chance.choice(SHAPES)
        self.etcd = SimulatedEtcd(self.network, self._chance("etcd"), self.trace)
        engine = self.etcd.engine
        identity = await found_store(engine, 0)
        self.store = Store(engine, identity, Counters(engine))
        for number in range(members + spares):
            name = f"n{number}"
            self.nodes[name] = SimulatedNode(
                *(name, f"z{number}", self.network, self.etcd),
                *(self._chance(f"disk/{name}"), self.trace),
            )
            self.nodes[name].start()
        founders = [Founder(n.name, n.zone, 1, n.name) for n in list(self.nodes.values())[:members]]
        await found_layout(
            *(engine, profile_name(scheme), Scheme.parse(scheme), founders),
            pg_count=PG_COUNT,
            stripe_bytes=STRIPE_BYTES,
            now_ms=0,
        )
        topology = Topology(engine)
        await topology.load()
        await create_profile(
            *(engine, topology, OTHER_PROFILE, OTHER_SCHEME),
            pg_count=PG_COUNT,
            stripe_bytes=STRIPE_BYTES,
            now_ms=0,
        )
        versioning = "Enabled" if self.chance.random() < VERSIONED_SHARE else ""
        bucket = BucketRecord(
            *(0, "owner", "us-east-1", profile_name(scheme), b"b" * 16), versioning=versioning
        )
        tx = Transaction()
        tx.put(keys.bucket(BUCKET), bucket)
        await engine.commit([], list(tx.writes.values()))
        await LiveTunables(engine).change(dict(TUNABLES))
        for number in range(self.chance.choice((2, 2, 3))):
            gateway = SimulatedGateway(
                *(f"g{number}", self.network, self.etcd, dict(self.nodes)),
                *(self._chance(f"gateway/{number}"), self.trace, self.history.complain),
            )
            self.gateways.append(gateway)
            gateway.start()

    def _client(self, name: str) -> Client:
        names = [f"key-{number}" for number in range(KEYS)]
        chance = self._chance(name)
        return Client(name, self.gateways, names, self.history, chance, self.trace)

    def _faults(self) -> Faults:
        return Faults(
            *(self.network, self.etcd, self.nodes, self.gateways),
            *(self._chance("faults"), self.trace, self._look, OTHER_PROFILE),
        )

    async def _look(self) -> Look:
        return await look(self.etcd, self.nodes, self.store)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                (await self._look()).check()
            except AssertionError as error:
                self.history.complain(f"at {self.now():.3f}: {error}")
                return

    async def _read_all(self) -> None:
        """A witness reads every key over every gateway."""
        for gateway in self.gateways:
            witness = self._client(f"witness-{gateway.name}-{self.now():.0f}")
            witness._gateways = [gateway]
            for key in (f"key-{number}" for number in range(KEYS)):
                for _ in range(HEALING_ROUNDS):
                    if await witness.get(key):
                        break
                    await asyncio.sleep(1.0)
                else:
                    self.history.complain(f"{key} cannot be read over {gateway.name}")
            await witness.list("")

    async def _until_healed(self, faults: Faults) -> None:
        """Let the workers work, in the end those of one gateway alone, until nothing is left."""
        trouble = ""
        for round_ in range(HEALING_ROUNDS):
            await asyncio.sleep(HEALING_SECONDS)
            if round_ == 1:
                for gateway in self.gateways[1:]:
                    gateway.kill()
            task = self.gateways[0].machine.spawn(self._tidy(faults, round_))
            try:
                await task
                await self._check_rest()
            except AssertionError as error:
                trouble = str(error)
            except EXPECTED as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                break
        else:
            self.history.complain(f"it does not heal: {trouble}")
        for gateway in self.gateways:
            if not gateway.up:
                gateway.start()

    async def _tidy(self, faults: Faults, round_: int) -> None:
        """What is due only much later is done by a clock that goes ahead by days."""
        gateway = self.gateways[0]
        assert gateway.storage is not None
        await faults.restore_layout(gateway)
        ahead = DAYS_SECONDS + round_ * RETRY_SECONDS if round_ >= EARLY_ROUNDS else 0.0
        gateway.machine.wall_offset = ahead
        await on_demand.end_stale_uploads(gateway.storage, 1.0)
        self.trace.note("repair", await on_demand.repair_all(gateway.storage))
        self.trace.note("garbage", await on_demand.collect_garbage(gateway.storage))
        await on_demand.expire_completed(gateway.storage)
        await faults.strike_off(gateway)

    async def _check_rest(self) -> None:
        storage, gateway = self.gateways[0].storage, self.gateways[0].gateway
        assert storage is not None
        layout = await layouts.current(self.etcd.engine)
        ledger = await read_ledger(self.etcd.engine, gateway.directory, layout)
        assert ledger.healed, f"the ledger: {ledger}"
        (await self._look()).check_at_rest()


def simulate(seed: int, *, keep: bool = False, chaos: float = CHAOS_SECONDS) -> Result:
    """Run one seed. Only in a process that `determinism.install` has prepared."""
    gc.disable()  # what collects when would decide when `__del__` runs
    cpu = determinism.CPU_SECONDS()
    limits.PART_BYTES_MIN = 1
    limits.WRITE_AGE_SECONDS_MAX = int(WRITE_AGE_SECONDS)
    unforeseen = Unforeseen()
    logging.basicConfig(handlers=[unforeseen], level=logging.WARNING, force=True)
    run = Simulation(seed, keep=keep, chaos=chaos)
    determinism.use(run)
    run.loop.set_exception_handler(lambda loop, context: None)
    try:
        copy_context().run(run.loop.run_until_complete, run.main())
    except NothingLeft:
        run.history.complain("everything waits for what never comes")
    wrong = [*violations(run.history), *unforeseen.found]
    for node in run.nodes.values():
        node.disk.forget()
    return Result(
        seed,
        run.trace.digest(),
        wrong,
        run.trace.count,
        len(run.history.operations),
        run.history.acknowledged(),
        determinism.CPU_SECONDS() - cpu,
        run.trace.lines,
    )
