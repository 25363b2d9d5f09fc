"""Runs the worker processes of one role (gateway, node, `up`) that share listening sockets.

The supervisor opens what must be opened once (sockets, the flocks of drives) and starts workers
as fresh interpreters that inherit those descriptors. It does little else, so it has little to
crash on. To each worker it has

- a **lifeline**: a Unix socket, the worker's stdin. First the pickled task, then, for each
  descriptor opened later, a `Grant` with it. Its end says that the supervisor is gone, however it
  died: the worker exits at once, in whatever state, which frees the descriptors (a drive's flock
  among them) so that the supervisor can be started again.
- a **status** pipe: one byte when the worker serves; its end says that the worker is gone.

What else is to be opened (drives that were plugged in) a **scout** finds: a function that is called
every few seconds, in a thread of its own, since a disk may hang. What it opens goes to all workers
that run and to all that are started later.

The workers share *one* inherited listening socket per port rather than one SO_REUSEPORT socket
each: the queue of connections not yet accepted belongs to the socket, so that it survives a killed
worker (with SO_REUSEPORT those clients get a reset), and an idle worker takes the next connection
(SO_REUSEPORT deals by hash; `nodes/http_share.py` makes the shares even).

A worker that dies is started again, at once the first time, then with growing pauses. One that
dies before all have served for the first time is a configuration that cannot work: the others are
stopped and its exit code returned. SIGTERM or SIGINT stops the workers gracefully, at once those
that do not serve yet; a second one or `graceful_seconds` kills them. A worker in which something
**hangs** that may do so for ever (a disk) ends by itself shortly before, without it: what it had
under way there is as after a crash. No thread that hangs keeps a process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import queue
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

LOG = logging.getLogger(__name__)

RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5.0
# A worker that has lived this long was healthy: its next restart is immediate.
HEALTHY_SECONDS: Final = 30.0
GRACEFUL_SECONDS: Final = 40.0
# Of its time to stop, a worker waits so much for what hangs.
STOP_SHARE: Final = 0.95
LEFTOVER_SECONDS_MAX: Final = 1.0
SCOUT_SECONDS: Final = 5.0

# Large buffers (stripes, fragments) come and go per request. glibc would give each back to the
# system and fault its pages in again: encoding at 0.8 instead of 4.4 GB/s. 32 MiB is the most that
# glibc takes for the first.
WORKER_ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
    # Every thread would get an arena of its own, each keeping what the buffers of one burst took:
    # memory above rest grew to more than twice what is in flight. (With two arenas PUT cost twice
    # the CPU.)
    "MALLOC_ARENA_MAX": "1",
    # gRPC's newer event engine wakes threads of its own for every answer: a call that waits for
    # nothing else cost 0.60 instead of 0.72 ms of the gateway's CPU without it.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_callback_cq",
}

_LENGTH = struct.Struct("!Q")
# A fresh interpreter that finds modules where this one does.
_WORKER_COMMAND: Final = (
    "import sys; sys.path[:] = {path!r}; from s3gw.supervisor import run_worker; run_worker()"
)
_EXIT_ORPHANED: Final = 3
_EXIT_LATER: Final = os.EX_TEMPFAIL


class StartLater(Exception):
    """For a worker to raise that is not ready yet: what it needs does not answer now. It is started
    again after a pause, also if it never was ready."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A descriptor that was opened while the workers run; it takes the place of the one of that
    name, if there is one. `value`, which can be pickled, says what it is."""

    name: str
    fd: int
    value: Any


Scout = Callable[[], Iterable[Grant]]
"""Opens what has come since it was called last; who made it closes it. Runs in a thread."""


@dataclass(slots=True)
class WorkerContext:
    """What a worker's entry point gets. `index` is 0 … `processes` - 1 and is kept by the
    successor of a worker that died; `sockets` and `fds` are inherited; `shutdown` is set when the
    worker should finish what it does and return; `grants` gets what was opened since the start.
    `busy_disks`, to be set by the worker, names those that something is under way on."""

    index: int
    processes: int
    payload: Any
    sockets: list[socket.socket]
    fds: dict[str, int]
    shutdown: asyncio.Event
    _status_fd: int
    is_ready: bool = False
    grants: asyncio.Queue[Grant] = field(default_factory=asyncio.Queue)
    busy_disks: Callable[[], Sequence[str]] = tuple

    def ready(self) -> None:
        """Say that this worker serves. To be called once."""
        self.is_ready = True
        os.write(self._status_fd, b"r")


WorkerMain = Callable[[WorkerContext], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Worker:
    """A slot: the process in it, or when to start the next."""

    index: int
    process: subprocess.Popen[bytes] | None = None
    lifeline: socket.socket | None = None
    status_fd: int = -1
    started: float = 0.0
    ready: bool = False
    pause: float = 0.0
    restart_at: float = 0.0


@dataclass
class Supervisor:
    """`main` is a coroutine function that a fresh interpreter can import, `payload` any value
    that can be pickled. `sockets` (listening) and `fds` (by name) are inherited by every worker.
    `announce` is called once, when all workers are ready for the first time, `scout` every
    `scout_seconds`."""

    main: WorkerMain
    payload: Any
    processes: int
    sockets: Sequence[socket.socket] = ()
    fds: Mapping[str, int] = field(default_factory=dict)
    announce: Callable[[], None] = lambda: None
    graceful_seconds: float = GRACEFUL_SECONDS
    scout: Scout | None = None
    scout_seconds: float = SCOUT_SECONDS

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError("at least one process is needed")
        self._workers = [_Worker(index) for index in range(self.processes)]
        self._selector = selectors.DefaultSelector()
        self._announced = False
        self._stopping = False
        self._signals = 0
        self._kill_at = 0.0
        self._exit_code = 0
        self._fds = dict(self.fds)
        self._grants: dict[str, Grant] = {}
        self._found: queue.SimpleQueue[Grant] = queue.SimpleQueue()
        self._ended = threading.Event()

    def run(self) -> int:
        """Run until stopped; to be called in the main thread. The exit code: 0 after a graceful
        stop, 1 when a worker failed in it or had to be killed, else that of the worker that could
        not start."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup_before = signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in before:
            signal.signal(number, self._on_signal)
        self._selector.register(wake_read, selectors.EVENT_READ)
        if self.scout is not None:
            arguments = (self.scout, wake_write)
            threading.Thread(target=self._look, args=arguments, name="scout", daemon=True).start()
        try:
            for worker in self._workers:
                self._start(worker)
            while any(worker.process for worker in self._workers) or not self._stopping:
                self._turn(wake_read)
        finally:
            self._ended.set()
            self._kill_all("the supervisor ends")
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            wake_read.close()
            wake_write.close()
        return self._exit_code

    def _turn(self, wake: socket.socket) -> None:
        ready = [key for key, _ in self._selector.select(self._timeout())]
        if any(key.fileobj is wake for key in ready):
            wake.recv(4096)
        # Before any worker's end is looked at: a signal to all processes at once ends them, too.
        if self._signals and not self._stopping:
            self._stop()
        for key in ready:
            if key.fileobj is not wake:
                self._on_status(key.data)
        while not self._found.empty():
            self._hand_out(self._found.get())
        now = time.monotonic()
        if self._stopping and self._signals > 1:
            self._kill_all("a second signal came before it had stopped")
        elif self._stopping and now >= self._kill_at:
            self._kill_all(f"it did not stop within {self.graceful_seconds:g} s")
        for worker in self._workers:
            if worker.process is None and not self._stopping and now >= worker.restart_at:
                self._start(worker)

    def _timeout(self) -> float | None:
        if self._stopping:
            return max(0.0, self._kill_at - time.monotonic())
        due = [worker.restart_at for worker in self._workers if worker.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start(self, worker: _Worker) -> None:
        status_read, status_write = os.pipe()
        lifeline, stdin = socket.socketpair()
        task = pickle.dumps(
            {
                "index": worker.index,
                "processes": self.processes,
                "sockets": [sock.fileno() for sock in self.sockets],
                "fds": dict(self._fds),
                "grants": list(self._grants.values()),
                "status": status_write,
                "stop_seconds": self.graceful_seconds * STOP_SHARE,
                "entry": pickle.dumps((self.main, self.payload)),
            }
        )
        try:
            process = self._spawn(worker, stdin, status_write)
        except OSError as error:
            os.close(status_read)
            lifeline.close()
            worker.restart_at = time.monotonic() + RESTART_SECONDS_MAX
            LOG.error("worker %d could not be started: %s", worker.index, error)  # noqa: TRY400
            return
        finally:
            stdin.close()
            os.close(status_write)
        worker.process, worker.lifeline, worker.status_fd = process, lifeline, status_read
        worker.started, worker.ready = time.monotonic(), False
        self._selector.register(status_read, selectors.EVENT_READ, worker)
        try:
            lifeline.sendall(_LENGTH.pack(len(task)) + task)
        except (BrokenPipeError, ConnectionResetError):
            LOG.warning("worker %d died before it read its task", worker.index)

    def _spawn(
        self, worker: _Worker, stdin: socket.socket, status_write: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _WORKER_COMMAND.format(path=sys.path), f"worker-{worker.index}"],
            stdin=stdin.fileno(),
            pass_fds=[
                status_write,
                *(sock.fileno() for sock in self.sockets),
                *self._fds.values(),
            ],
            env=WORKER_ENVIRONMENT | dict(os.environ),
        )

    def _look(self, scout: Scout, wake: socket.socket) -> None:
        """The scout's thread."""
        # Taken by this thread, a stop could come after the ends of the workers that it ends, too.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        while not self._ended.wait(self.scout_seconds):
            try:
                for grant in scout():
                    self._found.put(grant)
                    with suppress(OSError):  # it has ended, or is about to wake anyway
                        wake.send(b"g")
            except Exception:
                LOG.exception("looking for what is to be opened failed")

    def _hand_out(self, grant: Grant) -> None:
        """Give a descriptor to all workers, those that are started later included."""
        replaced = self._fds.get(grant.name)
        self._fds[grant.name] = grant.fd
        self._grants[grant.name] = grant
        message = pickle.dumps(grant)
        message = _LENGTH.pack(len(message)) + message
        for worker in self._workers:
            if worker.lifeline is not None:
                try:
                    socket.send_fds(worker.lifeline, [message], [grant.fd], socket.MSG_DONTWAIT)
                except OSError as error:
                    LOG.warning("worker %d goes without %s: %s", worker.index, grant.name, error)
        if replaced is not None:
            os.close(replaced)

    def _on_status(self, worker: _Worker) -> None:
        if os.read(worker.status_fd, 1):
            worker.ready = True
            if not self._announced and all(each.ready for each in self._workers):
                self._announced = True
                self.announce()
            return
        code = self._reap(worker)
        if self._stopping:
            if code not in (0, _EXIT_LATER, -signal.SIGTERM, -signal.SIGINT):
                LOG.error("worker %d failed while it was stopped (%s)", worker.index, _said(code))
                self._exit_code = self._exit_code or 1
        elif not self._announced and code != _EXIT_LATER:
            LOG.error("worker %d could not start (%s)", worker.index, _said(code))
            self._exit_code = code if code > 0 else 1
            self._stop()
        else:
            lived = time.monotonic() - worker.started
            grown = min(max(RESTART_SECONDS_MIN, worker.pause * 2), RESTART_SECONDS_MAX)
            worker.restart_at = time.monotonic() + (0 if lived > HEALTHY_SECONDS else worker.pause)
            worker.pause = 0.0 if lived > HEALTHY_SECONDS else grown
            LOG.error("worker %d died (%s), starting another", worker.index, _said(code))

    def _reap(self, worker: _Worker) -> int:
        assert worker.process is not None
        assert worker.lifeline is not None
        self._selector.unregister(worker.status_fd)
        os.close(worker.status_fd)
        code = worker.process.wait()
        worker.lifeline.close()
        worker.process = worker.lifeline = None
        return code

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + self.graceful_seconds
        # Otherwise connections would go on to queue here while nobody accepts them.
        for sock in self.sockets:
            sock.close()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.send_signal(signal.SIGTERM)

    def _kill_all(self, reason: str) -> None:
        for worker in self._workers:
            if worker.process is not None:
                LOG.warning("worker %d is killed: %s", worker.index, reason)
                self._exit_code = self._exit_code or 1
                worker.process.kill()
                self._reap(worker)


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def run_worker() -> NoReturn:
    """The whole life of a worker process: what `_WORKER_COMMAND` calls."""
    # Until the event loop has its own handlers, a stop ends the process silently.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    lifeline = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    (length,) = _LENGTH.unpack(_read_exactly(lifeline, _LENGTH.size))
    task = pickle.loads(_read_exactly(lifeline, length))  # noqa: S301 (our own parent's pipe)
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()
    for fd in (task["status"], *task["sockets"], *task["fds"].values()):
        os.set_inheritable(fd, False)
    main, payload = pickle.loads(task["entry"])  # noqa: S301
    sockets = [socket.socket(fileno=fd) for fd in task["sockets"]]
    code = _run(_run_main(main, payload, sockets, task, lifeline))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`, which waits for every thread: one that hangs on a disk may never end.
    os._exit(code)


def _run(main: Coroutine[Any, Any, None]) -> int:
    """The exit code of a coroutine. As `asyncio.run`, but what is left of other tasks and threads
    is not waited for without end."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 (as the interpreter does at its end)
        traceback.print_exc()
        return 1
    finally:
        loop.run_until_complete(_end_others())
    return 0


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=LEFTOVER_SECONDS_MAX)


async def _run_main(
    main: WorkerMain,
    payload: Any,
    sockets: list[socket.socket],
    task: dict[str, Any],
    lifeline: socket.socket,
) -> None:
    shutdown = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shutdown.set)
    context = WorkerContext(
        index=task["index"],
        processes=task["processes"],
        payload=payload,
        sockets=sockets,
        fds=task["fds"],
        shutdown=shutdown,
        _status_fd=task["status"],
    )
    for grant in task["grants"]:
        context.grants.put_nowait(grant)
    loop.add_reader(lifeline, _take_grant, lifeline, context)
    try:
        await _until_stopped(main(context), context, task["stop_seconds"])
    except StartLater as reason:
        LOG.error("not started: %s", reason)  # noqa: TRY400 (what happened is all in the reason)
        sys.exit(_EXIT_LATER)


async def _until_stopped(
    main: Coroutine[Any, Any, None], context: WorkerContext, stop_seconds: float
) -> None:
    """Run `main`, which ends by itself when it is asked to stop; only its start, which may wait for
    others as long as it takes, is cut short. That is as safe as a crash is, and so is to leave it
    when it has not ended after `stop_seconds`, since a disk hangs."""
    running = asyncio.create_task(main, name="main")
    stopping = asyncio.create_task(context.shutdown.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    cut_short = not running.done() and not context.is_ready
    if cut_short:
        running.cancel()
    await asyncio.wait({running}, timeout=stop_seconds)
    if not running.done():
        disks = ", ".join(sorted(set(context.busy_disks())))
        if disks:
            LOG.warning("worker %d stops while a disk hangs: %s", context.index, disks)
            return
    if not cut_short:
        await running
        return
    (ended,) = await asyncio.gather(running, return_exceptions=True)
    if isinstance(ended, Exception):
        LOG.warning("stopped while it started: %r", ended)


def _take_grant(lifeline: socket.socket, context: WorkerContext) -> None:
    """Read what the supervisor has opened: a message of which all is there."""
    head, fds, _, _ = socket.recv_fds(lifeline, _LENGTH.size, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        os._exit(_EXIT_ORPHANED)
    grant: Grant = pickle.loads(_read_exactly(lifeline, *_LENGTH.unpack(head)))  # noqa: S301
    context.fds[grant.name] = fds[0]
    context.grants.put_nowait(Grant(grant.name, fds[0], grant.value))


def _read_exactly(lifeline: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = lifeline.recv(size - len(data))
        if not more:
            os._exit(_EXIT_ORPHANED)
        data += more
    return data


def _watch(lifeline: socket.socket) -> None:
    """End the process when the supervisor is gone, whatever the event loop is doing."""
    poll = select.poll()
    poll.register(lifeline, 0)  # its end alone: what comes over it is for the event loop
    poll.poll()
    os._exit(_EXIT_ORPHANED)
