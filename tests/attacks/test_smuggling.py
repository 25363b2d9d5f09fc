"""Request smuggling, on the S3, the admin and the node port of real processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from compose.local import Etcd, Process, Up, free_port, listens, s3gw
from tests.attacks.target import Baseline, ask
from tests.edge.smuggling import ATTACKS, SMUGGLED


@dataclass(frozen=True)
class Port:
    number: int
    process: Process


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    directory = tmp_path_factory.mktemp("node")
    etcd = Etcd(directory / "etcd").start()
    port = free_port()
    command = s3gw("node", "--data", str(directory / "drive"), "--etcd", etcd.url)
    process = Process("node", [*command, "--listen", f"127.0.0.1:{port}"], directory / "node.log")
    try:
        process.start()
        process.wait_ready(lambda: listens("127.0.0.1", port))
        yield Port(port, process)
    finally:
        process.stop()
        etcd.stop()


@pytest.fixture(params=["S3", "admin", "node"])
def port(request: pytest.FixtureRequest, store: Up) -> Port:
    if request.param == "node":
        found: Port = request.getfixturevalue("node")
        return found
    return Port(store.s3_port if request.param == "S3" else store.admin_port, store.process)


def test_smuggling_is_400_and_the_end_of_the_connection(port: Port) -> None:
    for attack, request in ATTACKS.items():
        answer = ask(port.number, request + SMUGGLED)
        assert answer.status == 400, attack
        assert answer.data.count(b"HTTP/1.1 ") == 1, attack
        assert b"smuggled" not in answer.data, attack


def test_smuggling_leaves_nothing_behind(store: Up) -> None:
    before = Baseline.of(store.process, store.admin)
    for request in ATTACKS.values():
        ask(store.s3_port, request + SMUGGLED)
    before.require_return(memory_growth_max=8 << 20)
