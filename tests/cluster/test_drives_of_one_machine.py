"""Drives of `s3gw up` that are pulled, replaced, added and brought back: reads and writes go on,
what was lost is rebuilt, and the ledger tells how it stands.

The tests are the life of one store, in order; after each all objects are right.
"""

import dataclasses
import json
import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compose.local import Credentials, Up, free_port, s3gw, wait_until
from compose.s3_http import S3Http, Signer

SEED = 20260611
DRIVES = 6
OBJECTS = 24
OBJECT_BYTES = 150_000
HEALED_SECONDS_MAX = 120.0
# A look every 5 s, on a machine that is busy.
LOST_SECONDS_MAX = 20.0
# Either of two processes may answer.
PROCESSES_ASKED = 6
# Groups are few: how even it can be.
UNEVEN_MAX = 0.35
SETTINGS = {
    "S3GW_PROCESSES": "2",
    "S3GW_LEASE_SECONDS": "3",
    "S3GW_HEARTBEAT_SECONDS": "0.5",
    "S3GW_PG_COUNT": "32",
    "S3GW_GARBAGE_AFTER_SECONDS": "1",
    "S3GW_WORKER_INTERVAL_SECONDS": "1",
}


@dataclass
class Machine:
    """A store on one machine, started again and again, and every object that it acknowledged."""

    directory: Path
    credentials: Credentials = field(default_factory=Credentials.generate)
    bodies: dict[str, bytes] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    lost: int = 0
    lost_id: str = ""

    def start(self, drives: int = DRIVES) -> None:
        self.up = Up(
            self.directory, drives=drives, credentials=self.credentials, environment=SETTINGS
        ).start()
        signer = Signer(self.credentials.access_key, self.credentials.secret_key)
        self.s3 = S3Http(self.up.endpoint, signer)
        self.port = S3Http(self.up.admin, dataclasses.replace(signer, service="s3gw"))

    def drive(self, number: int) -> Path:
        return self.directory / f"drive-{number}"

    def pull(self, number: int) -> None:
        """Remove the drive's directory, while it is written to."""
        gone = self.directory.with_name("gone")
        self.drive(number).rename(gone)

        def removed() -> bool:
            shutil.rmtree(gone, ignore_errors=True)
            return not gone.exists()

        wait_until(removed, what="the drive is gone")

    def id_of(self, number: int) -> str:
        return str(json.loads((self.drive(number) / "id.json").read_text())["drive_id"])

    def admin(self, method: str, path: str, document: Any = None) -> Any:
        body = b"" if document is None else json.dumps(document).encode()
        headers = {"x-s3gw-nonce": secrets.token_hex(8)}
        reply = self.port.request(method, "/admin" + path, headers=headers, body=body)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the store, as an operator types it."""
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("S3GW_")},
            "S3GW_ADMIN": self.up.admin.removeprefix("http://"),
            "S3GW_ROOT_ACCESS_KEY": self.credentials.access_key,
            "S3GW_ROOT_SECRET_KEY": self.credentials.secret_key,
        }
        return subprocess.run(
            s3gw(*arguments), env=environment, capture_output=True, text=True, check=False
        )

    def write(self, objects: int = OBJECTS) -> None:
        for _ in range(objects):
            path, body = f"/drives/{len(self.bodies)}", self.chance.randbytes(OBJECT_BYTES)
            assert self.s3.request("PUT", path, body=body).status == 200
            self.bodies[path] = body

    def verify(self) -> None:
        for path, body in self.bodies.items():
            assert self.s3.request("GET", path).body == body

    def states(self) -> dict[str, str]:
        return {each["node"]: each["state"] for each in self.admin("GET", "/layout")["nodes"]}

    def slots(self) -> dict[str, int]:
        return {each["node"]: each["slots"] for each in self.admin("GET", "/nodes")["nodes"]}

    def ledger(self) -> dict[str, Any]:
        return dict(self.admin("GET", "/ledger"))

    def wait_used(self, drive_id: str) -> None:
        """Until every process uses a drive that came while the store runs."""

        def used() -> bool:
            asked = [self.admin("GET", "/nodes")["nodes"] for _ in range(PROCESSES_ASKED)]
            return all(
                any(each["node"] == drive_id and each["live"] for each in nodes) for nodes in asked
            )

        wait_until(used, what=f"{drive_id} is in use")

    def ledger_without(self, drive_id: str) -> dict[str, Any]:
        """The first ledger that counts a drive as lost; each process keeps its own a while."""
        seen: dict[str, Any] = {}

        def counted_as_lost() -> bool:
            seen.update(self.ledger())
            return drive_id in seen["nodes_down"]

        what = f"the ledger counts {drive_id} as lost"
        wait_until(counted_as_lost, what=what, seconds_max=LOST_SECONDS_MAX)
        return seen

    def wait_state(self, drive_id: str, state: str) -> None:
        wait_until(
            lambda: self.states().get(drive_id) == state,
            what=f"{drive_id} {state}",
            seconds_max=HEALED_SECONDS_MAX,
        )

    def wait_healed(self) -> None:
        """Until no placement group is on its way, and the ledger says that all is whole."""
        seen: dict[str, Any] = {}

        def healed() -> bool:
            seen.update(self.admin("GET", "/rebalances"))
            if seen["epoch"] < self.admin("GET", "/layout")["epoch"] or seen["groups_left"]:
                return False
            self.admin("POST", "/run/repair")  # what could not be done before would wait a minute
            seen.update(self.ledger())
            return bool(seen["healed"])

        try:
            wait_until(healed, what="healed", seconds_max=HEALED_SECONDS_MAX)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {seen}") from error

    def journal_members(self) -> set[str]:
        """The drives in the set of the newest journal record, by the names of their directories."""
        records = {
            path.parent.parent.name: json.loads(path.read_text())
            for path in self.directory.glob("drive-*/journal/set")
        }
        newest = max(records.values(), key=lambda record: int(record["set"]))
        members = set(newest["members"])
        return {name for name, record in records.items() if record["drive"] in members}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("drives") / "store")
    made.start()
    try:
        made.admin("PUT", "/tunables", {"rebuild_after_seconds": 1, "hold_down_seconds": 1})
        assert made.s3.request("PUT", "/drives").status == 200
        made.write()
        yield made
    finally:
        made.up.stop()


def test_a_store_weighs_its_drives_by_capacity(machine: Machine) -> None:
    weights = [each["weight"] for each in machine.admin("GET", "/layout")["nodes"]]
    assert weights == [shutil.disk_usage(machine.directory).total] * DRIVES


def test_a_drive_is_pulled_while_the_store_runs(machine: Machine) -> None:
    """Without a spare nobody takes its slots: everything can be read and written, and the ledger
    does not say healed. The journal goes on with another drive."""
    machine.wait_healed()
    before = machine.journal_members()
    pulled = machine.lost = int(min(before).removeprefix("drive-"))
    lost_id = machine.lost_id = machine.id_of(pulled)
    machine.pull(pulled)
    machine.write()
    machine.verify()
    assert len(machine.journal_members()) == len(before)
    machine.wait_state(lost_id, "out")
    ledger = machine.ledger_without(lost_id)
    assert not ledger["healed"]
    assert ledger["total"]["reduced"]["blobs"] > 0
    assert ledger["total"]["lost"]["blobs"] == 0
    assert not machine.drive(pulled).exists()
    machine.write()
    machine.verify()


def test_a_new_disk_takes_the_place_of_the_lost_one(machine: Machine) -> None:
    """First the empty directory is refused, as it may be a disk that is not mounted."""
    lost, lost_id = machine.lost, machine.lost_id
    assert machine.up.stop() == 0
    machine.drive(lost).mkdir()
    ports = ("--s3", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}")
    refused = machine.command("up", "--data", str(machine.directory), *ports)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "s3gw drive add" in refused.stderr
    path = str(machine.drive(lost))
    added = machine.command("drive", "add", path, "--data", str(machine.directory))
    assert added.returncode == 0, added.stderr
    new_id = machine.id_of(lost)
    assert new_id != lost_id
    assert f"layout stage add {new_id}" in added.stdout
    machine.start()
    assert machine.states().get(new_id) is None
    assert machine.slots()[new_id] == 0
    staged = machine.command("admin", "layout", "stage", "add", new_id)
    assert staged.returncode == 0, staged.stderr
    assert machine.command("admin", "layout", "apply").returncode == 0
    machine.wait_healed()
    removed = machine.command("admin", "node", lost_id, "decommission", "--watch")
    assert removed.returncode == 0, removed.stderr
    assert lost_id not in machine.states()
    assert machine.slots()[new_id] == max(machine.slots().values())
    machine.verify()


def test_a_drive_is_added_while_the_store_runs(machine: Machine) -> None:
    path = str(machine.drive(DRIVES + 1))
    added = machine.command("drive", "add", path, "--data", str(machine.directory))
    assert added.returncode == 0, added.stderr
    again = machine.command("drive", "add", path, "--data", str(machine.directory))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already" in again.stderr
    new_id = machine.id_of(DRIVES + 1)
    machine.write(4)
    machine.wait_used(new_id)
    machine.command("admin", "layout", "stage", "add", new_id)
    assert machine.command("admin", "layout", "apply").returncode == 0
    machine.wait_healed()
    slots = machine.slots()
    fair = sum(slots.values()) / len(slots)
    assert all(abs(count - fair) <= UNEVEN_MAX * fair for count in slots.values()), slots
    assert any(path.is_file() for path in machine.drive(DRIVES + 1).glob("data/*/*/*"))
    machine.verify()


def test_drives_that_are_absent_or_give_errors_at_a_start_are_used_again_when_they_are_back(
    machine: Machine,
) -> None:
    """They come back while the store runs. The drive that was added is known without being named,
    and too few are left to rebuild on."""
    aside, id_file = machine.directory.with_name("aside"), machine.drive(3) / "id.json"
    lost = [machine.id_of(2), machine.id_of(3)]
    assert machine.up.stop() == 0
    machine.drive(2).rename(aside)
    id_file.rename(id_file.with_name("kept"))
    id_file.symlink_to("/proc/self/mem")  # reading it gives EIO
    machine.start()
    for words in (f"drive {machine.drive(2)} is absent", "is left out: ", "Input/output error"):
        assert machine.up.process.said(words)
    live = {each["node"]: each["live"] for each in machine.admin("GET", "/nodes")["nodes"]}
    assert [live[drive_id] for drive_id in lost] == [False, False]
    machine.write(4)
    for drive_id in lost:
        machine.wait_state(drive_id, "out")
        assert not machine.ledger_without(drive_id)["healed"]
    machine.verify()
    aside.rename(machine.drive(2))
    id_file.unlink()
    id_file.with_name("kept").rename(id_file)
    for drive_id in lost:
        machine.wait_used(drive_id)
        machine.wait_state(drive_id, "active")
    machine.wait_healed()
    assert all(machine.slots()[drive_id] > 0 for drive_id in lost)
    machine.verify()


def test_a_drive_swapped_for_an_empty_one_counts_as_lost_at_once(machine: Machine) -> None:
    """Its directory takes writes and has its id; nothing says that its shards are gone but their
    mark."""
    drive_id = machine.id_of(4)
    machine.wait_healed()
    machine.admin("PUT", "/tunables", {"rebuild_after_seconds": 3600})
    data = machine.drive(4) / "data"
    data.rename(machine.directory.with_name("swapped"))
    data.mkdir()
    ledger = machine.ledger_without(drive_id)
    assert not ledger["healed"]
    assert ledger["total"]["reduced"]["blobs"] > 0
    machine.verify()
    machine.admin("PUT", "/tunables", {"rebuild_after_seconds": 1})
    machine.wait_state(drive_id, "out")
    machine.wait_healed()
    machine.verify()
