"""Entry points that the supervisor's tests run in real worker processes, and, run as a script, a
supervisor around one of them: `supervised.py <entry point> <processes> <graceful seconds>`.

The script prints one line of JSON when the workers are ready; workers print their pids."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nodes import http_share
from nodes.http_guard import GuardOptions, bind, serve
from nodes.http_share import SHARE, Share, make_share
from s3gw.supervisor import Grant, StartLater, Supervisor, WorkerContext


async def serve_pid(worker: WorkerContext) -> None:
    """An HTTP server: `/pid` answers who it is; `/slow` begins an answer, and ends it when the
    worker is asked to stop; `/exit` exits; `/stall` blocks the event loop."""

    grants = worker.grants

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        if scope["path"] == "/exit":
            os._exit(7)
        if scope["path"] == "/stall":
            signal.pause()
        described = {
            "pid": os.getpid(),
            "index": worker.index,
            "payload": worker.payload,
            "fds": sorted(worker.fds),
            "files": {name: os.readlink(f"/proc/self/fd/{fd}") for name, fd in worker.fds.items()},
            "granted": [grants.get_nowait().value for _ in range(grants.qsize())],
            "malloc": os.environ["MALLOC_TRIM_THRESHOLD_"],
        }
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/slow":
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await worker.shutdown.wait()
            await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": json.dumps(described).encode()})

    share = Share(worker.fds[SHARE], worker.index) if SHARE in worker.fds else None
    worker.ready()
    await serve(app, worker.sockets, GuardOptions(graceful_seconds=5), worker.shutdown, share)


async def serve_evenly(worker: WorkerContext) -> None:
    """The same, with patience: on a busy machine the other process needs more than a moment."""
    http_share.LEAVE_SECONDS = 20.0  # type: ignore[misc]
    await serve_pid(worker)


async def fail_to_start(worker: WorkerContext) -> None:
    if worker.index == 1:
        raise SystemExit(9)
    worker.ready()
    await worker.shutdown.wait()


async def start_at_the_third_attempt(worker: WorkerContext) -> None:
    attempts = Path(os.environ["LOCK_PATH"]).with_suffix(".attempts")
    with attempts.open("a") as file:
        file.write("x")
    if attempts.stat().st_size < 3:
        raise StartLater(f"attempt {attempts.stat().st_size}")
    worker.ready()
    await worker.shutdown.wait()


async def start_slowly(worker: WorkerContext) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(os.getpid(), flush=True)
    await asyncio.Event().wait()


async def give_up_when_stopped(worker: WorkerContext) -> None:
    """A start that fails for want of others, just when it is to stop."""
    print(os.getpid(), flush=True)
    await worker.shutdown.wait()
    raise StartLater("nobody answers")


async def wait_for_others(worker: WorkerContext) -> None:
    """A start that does not end by itself."""
    print("waiting", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        if worker.index:
            raise OSError("what it waited for has gone")


async def ignore_shutdown(worker: WorkerContext) -> None:
    worker.ready()
    await worker.shutdown.wait()
    print("asked to stop", flush=True)
    await asyncio.Event().wait()


async def wait_for_a_disk(worker: WorkerContext) -> None:
    """One of asyncio's threads and the end of `main` wait for a disk."""
    disk = Path(os.environ["LOCK_PATH"]).with_suffix(".fifo")
    os.mkfifo(disk)
    reading = asyncio.create_task(asyncio.to_thread(disk.read_bytes))
    worker.busy_disks = lambda: [str(disk)]
    worker.ready()
    await worker.shutdown.wait()
    await asyncio.shield(reading)


async def leave_a_disk(worker: WorkerContext) -> None:
    """`main` ends; one of asyncio's threads and an executor's wait for a disk."""
    disk = Path(os.environ["LOCK_PATH"]).with_suffix(".fifo")
    os.mkfifo(disk)
    reading = asyncio.create_task(asyncio.to_thread(disk.read_bytes))
    executor = ThreadPoolExecutor(1)
    executor.submit(disk.read_bytes)
    worker.ready()
    await worker.shutdown.wait()
    print("the end", flush=True)
    reading.cancel()


async def fail_beside_a_disk(worker: WorkerContext) -> None:
    """A process that breaks down is started again, whatever its threads wait for."""
    disk = Path(os.environ["LOCK_PATH"]).with_suffix(".fifo")
    if disk.exists():
        worker.ready()
        print("again", flush=True)
        await worker.shutdown.wait()
        return
    os.mkfifo(disk)
    ThreadPoolExecutor(1).submit(disk.read_bytes)
    worker.ready()
    await asyncio.sleep(0.1)
    raise RuntimeError("a bug")


def scout(folder: Path) -> Iterator[Grant]:
    """Grants each file of a folder that was not there before, named by what stands before `-`."""
    for path in sorted(folder.glob("*-*")):
        if path not in SCOUTED:
            SCOUTED.add(path)
            yield Grant(path.name.partition("-")[0], os.open(path, os.O_RDONLY), str(path))


SCOUTED: set[Path] = set()


def main() -> int:
    entry, processes, graceful = sys.argv[1:4]
    listener = bind("127.0.0.1", 0)
    lock = os.open(Path(os.environ["LOCK_PATH"]), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fds = {"drive": lock}
    if entry == "serve_evenly":
        fds[SHARE] = make_share(int(processes))
    address = listener.getsockname()

    def announce() -> None:
        print(json.dumps({"port": address[1]}), flush=True)

    import supervised

    return Supervisor(
        main=getattr(supervised, entry),
        payload={"greeting": "hello"},
        processes=int(processes),
        sockets=[listener],
        fds=fds,
        announce=announce,
        graceful_seconds=float(graceful),
        scout=lambda: scout(Path(os.environ["LOCK_PATH"]).parent),
        scout_seconds=0.05,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
