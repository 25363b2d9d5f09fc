"""Who does background work: every gateway, or with `workers` off the processes of `s3gw worker`."""

from __future__ import annotations

import asyncio
import os

import pytest

from s3gw import launch
from s3gw.app import started_when_etcd_answers
from s3gw.cluster.founding import found_store
from s3gw.cluster.membership import Membership
from s3gw.config import Config
from s3gw.gateway import Gateway
from s3gw.kv.interface import CommitTooLarge, Unavailable
from s3gw.kv.memory import MemoryKV, MemoryStore
from s3gw.supervisor import StartLater, WorkerContext
from tests.stores.virtual_time import run_virtual

ETCD = ("http://127.0.0.1:1",)


async def kinds_of_work(*, workers: bool) -> set[str]:
    """The names of the workers that a gateway of such a setting runs."""
    kv = MemoryKV(MemoryStore())
    gateway = Gateway(Config(workers=workers), kv, await found_store(kv, 0))
    membership = Membership(kv, gateway.directory, gateway.topology, None)
    storage = await gateway.start(membership)
    return {worker.name for worker in gateway.workers(storage, membership)}


async def test_without_workers_a_gateway_only_queues_and_looks_after_itself() -> None:
    everything = await kinds_of_work(workers=True)
    own = await kinds_of_work(workers=False)
    assert own == {"access-logs", "damage", "space"}
    kept = {"departures", "rebalance", "repair", "garbage", "inventory", "names", "snapshot"}
    assert own | kept <= everything


@pytest.mark.parametrize(("interval", "looks"), [(10.0, 5.0), (1.0, 1.0)])
def test_what_is_lost_and_what_is_to_move_is_looked_for_every_5_seconds_or_more_often(
    interval: float, looks: float
) -> None:
    async def scenario() -> None:
        kv = MemoryKV(MemoryStore())
        config = Config(worker_interval_seconds=interval)
        gateway = Gateway(config, kv, await found_store(kv, 0))
        membership = Membership(kv, gateway.directory, gateway.topology, None)
        workers = gateway.workers(await gateway.start(membership), membership)
        loop = asyncio.get_running_loop()
        for name in ("departures", "rebalance"):
            (worker,) = [each for each in workers if each.name == name]
            begun = loop.time()
            await worker.wait()
            assert loop.time() - begun == pytest.approx(looks), name

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("ready", "raised", "told"),
    [
        (False, Unavailable, StartLater),
        (True, Unavailable, Unavailable),
        (False, CommitTooLarge, CommitTooLarge),  # no outage: it would never end
    ],
)
async def test_only_a_start_waits_for_etcd(
    *, ready: bool, raised: type[Exception], told: type[Exception]
) -> None:
    @started_when_etcd_answers
    async def main(context: WorkerContext) -> None:
        if ready:
            context.ready()
        raise raised("nobody there")

    reader, writer = os.pipe()
    try:
        context = WorkerContext(0, 1, None, [], {}, asyncio.Event(), writer)
        with pytest.raises(told, match="nobody there"):
            await main(context)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("role", "config", "message"),
    [
        ("worker", Config(), "on one machine `s3gw up` does the background work"),
        ("worker", Config(etcd=ETCD), "the admin port needs root credentials"),
        ("up", Config(workers=False), "on one machine `up` does the background work"),
    ],
)
def test_what_a_role_cannot_do_is_said_in_one_line(
    role: str, config: Config, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.run(launch.ROLES[role], config) == launch.EXIT_START
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
