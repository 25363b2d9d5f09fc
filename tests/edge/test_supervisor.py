"""The supervisor with real processes: crashes, restarts, graceful stop, and its own death."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compose.local import wait_until
from s3gw import launch
from s3gw.config import Config

SCRIPT = Path(__file__).with_name("supervised.py")
ROOT = SCRIPT.parents[2]
# A bound of time holds if it holds once: the machine of a test does other things too.
ATTEMPTS = 3


class Supervised:
    """A supervisor in its own process."""

    def __init__(self, lock: Path, entry: str, processes: int, graceful: float = 10) -> None:
        self.log = lock.with_name("log")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), entry, str(processes), str(graceful)],
            stdout=subprocess.PIPE,
            stderr=self.log.open("ab"),
            env=os.environ | {"LOCK_PATH": str(lock), "PYTHONPATH": str(ROOT)},
        )

    def announced_port(self) -> int:
        assert self.process.stdout is not None
        return int(json.loads(self.process.stdout.readline())["port"])

    def wait(self) -> int:
        return self.process.wait(timeout=30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def start_one(*arguments: Any) -> Supervised:
        started.append(Supervised(tmp_path / "lock", *arguments))
        return started[-1]

    yield start_one
    for each in started:
        each.process.kill()
        each.process.wait()
        assert each.process.stdout is not None
        each.process.stdout.close()


def ask(port: int, path: str = "/pid") -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


def pids(port: int, count: int) -> set[int]:
    """The pids of all workers: each connection is taken by whoever is idle."""
    seen: set[int] = set()
    deadline = time.monotonic() + 20
    while len(seen) < count:
        assert time.monotonic() < deadline, f"only {seen} answer"
        asked = [threading.Thread(target=lambda: seen.add(ask(port)["pid"])) for _ in range(8)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
    return seen


def gone_within(pid: int, seconds: float) -> bool:
    """Whether a process (not our child) ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([fd], [], [], seconds)
        return bool(readable)
    finally:
        os.close(fd)


def lock_is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_workers_get_index_payload_descriptors_and_malloc_settings(start: Any) -> None:
    port = start("serve_pid", 2).announced_port()
    assert len(pids(port, 2)) == 2
    answer = ask(port)
    assert answer["payload"] == {"greeting": "hello"}
    assert answer["fds"] == ["drive"]
    assert answer["index"] in (0, 1)
    assert int(answer["malloc"]) >= 1 << 20


def test_connections_that_are_kept_are_shared_evenly(start: Any) -> None:
    port = start("serve_evenly", 2).announced_port()
    assert len(pids(port, 2)) == 2
    kept = []
    answered: Counter[int] = Counter()
    for _ in range(16):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/pid")
        answered[json.loads(connection.getresponse().read())["pid"]] += 1
        kept.append(connection)
    assert sorted(answered.values()) == [8, 8]
    for connection in kept:
        connection.close()


def test_a_killed_worker_is_restarted_and_the_others_go_on_serving(start: Any) -> None:
    port = start("serve_pid", 2).announced_port()
    victim, survivor = pids(port, 2)
    os.kill(victim, signal.SIGKILL)
    assert gone_within(victim, 5)
    # With the listening socket shared, no connection waits in the queue of a dead process.
    answers = [ask(port)["pid"] for _ in range(50)]
    assert victim not in answers
    assert len(pids(port, 2) - {victim}) == 2
    assert survivor in pids(port, 2)


def test_under_load_a_killed_worker_fails_only_what_it_was_serving(start: Any) -> None:
    port = start("serve_pid", 2).announced_port()
    workers = pids(port, 2)
    failures: list[Exception] = []
    answers: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                answers.append(ask(port)["pid"])
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    os.kill(min(workers), signal.SIGKILL)
    replaced = pids(port, 2) - workers
    while not replaced:
        replaced = pids(port, 2) - workers
    stop.set()
    for thread in threads:
        thread.join()
    # Each of the four clients can have had one request in the killed worker, never two.
    assert len(failures) <= 4
    assert len(answers) > 20


def test_a_worker_that_exits_by_itself_is_restarted_again_and_again(start: Any) -> None:
    port = start("serve_pid", 1).announced_port()
    seen = set()
    for _ in range(3):
        seen.add(ask(port)["pid"])
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(port, "/exit")
    seen.add(ask(port)["pid"])
    assert len(seen) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_finishes_requests_in_flight_and_exits_with_0(
    start: Any, number: signal.Signals
) -> None:
    supervised = start("serve_pid", 2)
    port = supervised.announced_port()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/slow")
    response = connection.getresponse()
    assert response.read(1) == b" "
    supervised.process.send_signal(number)
    assert json.loads(response.read())["payload"] == {"greeting": "hello"}
    assert supervised.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(port)


@pytest.mark.parametrize("blocked", [False, True])
def test_workers_exit_within_a_second_when_the_supervisor_is_killed(
    start: Any, tmp_path: Path, blocked: bool
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        supervised = start("serve_pid", 2)
        port = supervised.announced_port()
        workers = pids(port, 2)
        if blocked:
            # A worker whose event loop hangs must go too: it holds the drive's lock.
            stuck = http.client.HTTPConnection("127.0.0.1", port)
            stuck.request("GET", "/stall")
        assert not lock_is_free(tmp_path / "lock")
        supervised.process.kill()
        killed = time.monotonic()
        supervised.process.wait()
        assert all(gone_within(pid, 20) for pid in workers)
        seconds = time.monotonic() - killed
        assert lock_is_free(tmp_path / "lock")
        if seconds < 1:
            break
        assert attempt < ATTEMPTS, seconds
    again = start("serve_pid", 2)
    assert ask(again.announced_port())["payload"] == {"greeting": "hello"}


def wait_files(port: int, expected: dict[str, str]) -> None:
    """Until two workers have said that they have these files open under these names."""
    seen: set[int] = set()

    def note() -> None:
        answer = ask(port)
        if answer["files"].items() >= expected.items():
            seen.add(answer["pid"])

    deadline = time.monotonic() + 20
    while len(seen) < 2:
        assert time.monotonic() < deadline, f"only {seen} have it"
        asked = [threading.Thread(target=note) for _ in range(8)]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()


def test_what_is_opened_later_goes_to_all_workers_and_those_started_after(
    start: Any, tmp_path: Path
) -> None:
    port = start("serve_pid", 2).announced_port()
    first, second = tmp_path / "late-1", tmp_path / "late-2"
    first.touch()
    wait_files(port, {"late": str(first)})
    second.touch()  # takes the place of the first
    wait_files(port, {"late": str(second)})
    victim = min(pids(port, 2))
    os.kill(victim, signal.SIGKILL)
    assert gone_within(victim, 5)
    wait_files(port, {"late": str(second)})


def test_a_worker_is_told_once_what_was_opened(start: Any, tmp_path: Path) -> None:
    port = start("serve_pid", 1).announced_port()
    (tmp_path / "late-1").touch()
    granted: list[str] = []
    deadline = time.monotonic() + 20
    while not granted:
        assert time.monotonic() < deadline
        granted += ask(port)["granted"]
    assert granted == [str(tmp_path / "late-1")]
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, "/exit")
    assert ask(port)["granted"] == granted


@pytest.mark.parametrize("entry", ["start_slowly", "give_up_when_stopped"])
def test_a_stop_that_reaches_workers_first_is_no_failure(start: Any, entry: str) -> None:
    """As when a service manager signals all processes while they start."""
    supervised = start(entry, 2)
    workers = [int(supervised.process.stdout.readline()) for _ in range(2)]
    supervised.process.send_signal(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        assert zombie_within(pid, 10)
    supervised.process.terminate()
    supervised.process.send_signal(signal.SIGCONT)
    assert supervised.wait() == 0


def test_a_stop_cuts_a_start_short_that_waits_for_others(start: Any) -> None:
    supervised = start("wait_for_others", 2, 600)
    for _ in range(2):
        assert supervised.process.stdout.readline() == b"waiting\n"
    supervised.process.terminate()
    assert supervised.wait() == 0
    assert "what it waited for has gone" in supervised.log.read_text()


def zombie_within(pid: int, seconds: float) -> bool:
    """Whether a process has ended, its parent not having asked for that yet."""
    status = Path(f"/proc/{pid}/status")
    try:
        wait_until(lambda: "\nState:\tZ" in status.read_text(), what="ended", seconds_max=seconds)
    except TimeoutError:
        return False
    return True


def test_a_worker_that_cannot_start_ends_the_whole_with_its_exit_code(start: Any) -> None:
    supervised = start("fail_to_start", 2)
    assert supervised.wait() == 9
    assert supervised.process.stdout.read() == b""


def test_a_worker_that_cannot_start_yet_is_started_again(start: Any) -> None:
    supervised = start("start_at_the_third_attempt", 1)
    supervised.announced_port()
    supervised.process.terminate()
    assert supervised.wait() == 0
    log = supervised.log.read_text()
    assert [f"not started: attempt {number}" in log for number in (1, 2, 3)] == [True, True, False]
    assert "Traceback" not in log


def test_a_worker_that_ignores_the_stop_is_killed_after_its_time(start: Any) -> None:
    supervised = start("ignore_shutdown", 1, 0.3)
    supervised.announced_port()
    supervised.process.terminate()
    assert supervised.wait() == 1
    assert "worker 0 is killed: it did not stop within 0.3 s" in supervised.log.read_text()


def test_a_worker_with_a_disk_that_hangs_stops_without_it(start: Any, tmp_path: Path) -> None:
    supervised = start("wait_for_a_disk", 1, 2.0)
    supervised.announced_port()
    supervised.process.terminate()
    begun = time.monotonic()
    assert supervised.wait() == 0
    assert time.monotonic() - begun > 1  # it had its time
    disk = tmp_path / "lock.fifo"
    assert f"worker 0 stops while a disk hangs: {disk}" in supervised.log.read_text()


def test_threads_that_hang_keep_no_process_from_ending(start: Any) -> None:
    supervised = start("leave_a_disk", 1, 60.0)
    supervised.announced_port()
    supervised.process.terminate()
    assert supervised.wait() == 0
    assert "killed" not in supervised.log.read_text()


def test_a_worker_that_breaks_down_beside_a_disk_that_hangs_is_started_again(start: Any) -> None:
    supervised = start("fail_beside_a_disk", 1)
    supervised.announced_port()
    assert supervised.process.stdout.readline() == b"again\n"
    assert "RuntimeError: a bug" in supervised.log.read_text()
    supervised.process.terminate()
    assert supervised.wait() == 0


def test_a_second_signal_kills_at_once(start: Any) -> None:
    supervised = start("ignore_shutdown", 1, 600)
    supervised.announced_port()
    supervised.process.terminate()
    assert supervised.process.stdout.readline() == b"asked to stop\n"
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.wait() == 1
    assert "worker 0 is killed: a second signal" in supervised.log.read_text()


def test_a_start_that_is_interrupted_ends_without_a_traceback() -> None:
    """Before there are workers to stop."""

    def role(config: Config) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not interrupted")

    assert launch.run(role, Config()) == launch.EXIT_INTERRUPTED
