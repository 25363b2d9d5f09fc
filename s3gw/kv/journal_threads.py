"""Work on the drives of a journal, all at once, and on without those that hang.

A disk that hangs fails no call: none returns. So each drive is asked in a thread, and one that is
late is left behind, as if it had failed. **Late is who comes `patience_seconds` after the first**:
a machine that is slow as a whole leaves no drive behind. Where there is none to compare with, the
caller says how long to wait. Long work counts its steps (`Folder.steps`): who goes on is not late.

A drive that was left behind is not asked again before its thread has come back. What that one did
meanwhile is no harm: a late entry is one that the set may have or not, at the end of a segment that
the drive's next one replaces; no write, cut or name is begun any more (`Folder.left_behind`), since
another process may have the drive in the set still; and what it wrote until then has a name of its
own, which no other process opens.

The threads are daemons: the interpreter waits for no other kind to end, and one may never do so.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue

from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import JournalDamaged, NotContinued

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
LOOK_SECONDS_MAX = 0.25
"""After so long, who waits looks whether it should go on."""

Trouble = OSError | JournalDamaged | NotContinued
"""What a drive may fail with."""

Work = Callable[[Folder], object]


class Round:
    """Something asked of several drives at once. `refused` are those that still hang."""

    __slots__ = ("_answered", "_ended", "_left", "first", "refused", "steps", "work")

    def __init__(self, folders: Iterable[Folder], work: Work, busy: set[Folder]) -> None:
        self.work = work
        self.refused: list[Folder] = []
        self.steps: dict[Folder, int] = {}
        for folder in folders:
            if folder in busy:
                self.refused.append(folder)
            else:
                self.steps[folder] = folder.steps
        self.first: float | None = None
        self._answered: list[tuple[Folder, BaseException | None]] = []
        self._left = iter(range(len(self.steps) - 1, -1, -1))
        self._ended = threading.Lock()
        if self.steps:
            self._ended.acquire()

    def answer(self, folder: Folder, error: BaseException | None) -> None:
        """By a drive's thread. Only the last one wakes who waits."""
        if self.first is None:
            self.first = time.monotonic()
        self._answered.append((folder, error))
        if next(self._left) == 0:
            self._ended.release()

    def ended(self, seconds: float) -> bool:
        """Whether all have answered within so many seconds."""
        return self._ended.acquire(timeout=seconds)

    def late(self) -> Iterator[Folder]:
        """Who has neither answered nor made a step since this was asked last."""
        answered = {folder for folder, _ in self._answered}
        for folder, steps in list(self.steps.items()):
            if folder not in answered:
                if folder.steps == steps:
                    yield folder
                self.steps[folder] = folder.steps

    def answers(self) -> dict[Folder, BaseException | None]:
        return dict(self._answered)


class DriveThreads:
    """Threads for one journal; used by one thread at a time, but for `interrupt`."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self.interrupted = False
        self._idle: list[SimpleQueue[tuple[Folder, Round] | None]] = []
        self._busy: set[Folder] = set()

    def hangs(self, folder: Folder) -> bool:
        """Whether the drive was left behind and has not come back."""
        return folder in self._busy

    def at_work(self) -> set[Path]:
        """The drives that something was asked of and that have not answered. From any thread."""
        return {folder.path.parent for folder in tuple(self._busy)}

    def on_all(
        self,
        folders: Iterable[Folder],
        work: Work,
        *,
        seconds: float | None = None,
        patience: float | None = None,
    ) -> dict[Folder, Trouble]:
        """Do something on drives at once; those that failed, and how. `seconds` is how long to wait
        for the first one (None: for ever), `patience` for the others after it."""
        return self.wait(self.start(folders, work), seconds=seconds, patience=patience)

    def start(self, folders: Iterable[Folder], work: Work) -> Round:
        """Begin to do something on drives."""
        begun = Round(folders, work, self._busy)
        for folder in begun.steps:
            self._busy.add(folder)
            folder.left_behind = False
            jobs = self._idle.pop() if self._idle else self._make_thread()
            jobs.put((folder, begun))
        return begun

    def wait(
        self, begun: Round, *, seconds: float | None = None, patience: float | None = None
    ) -> dict[Folder, Trouble]:
        """Wait until all drives have answered or are late; see `on_all`. Raises InterruptedError.
        To be called once."""
        given_up: set[Folder] = set()
        end = None if seconds is None else time.monotonic() + seconds
        patience = self.patience_seconds if patience is None else patience
        compared = False
        while not begun.ended(LOOK_SECONDS_MAX if end is None else _left(end)):
            if self.interrupted:
                raise InterruptedError("the journal is being closed")
            if not compared and begun.first is not None:
                compared, end = True, begun.first + patience
            if end is not None and time.monotonic() >= end:
                for folder in begun.late():
                    folder.left_behind = True
                    given_up.add(folder)
                if given_up >= begun.steps.keys() - begun.answers().keys():
                    break
                end = time.monotonic() + patience
        failed: dict[Folder, Trouble] = {folder: _late() for folder in begun.refused}
        failed |= {folder: _late() for folder in given_up}
        for folder, error in begun.answers().items():
            if folder in given_up:
                continue
            if isinstance(error, OSError | JournalDamaged | NotContinued):
                failed[folder] = error
            elif error is not None:
                raise error
        for folder, trouble in failed.items():
            log.warning("journal on %s failed: %s", folder.path, trouble)
        return failed

    def answers(self, folder: Folder) -> bool:
        """Whether a drive takes something in time."""
        return not self.on_all([folder], Folder.probe, seconds=self.patience_seconds)

    def interrupt(self) -> None:
        """Let nobody wait any more. From any thread."""
        self.interrupted = True

    def close(self) -> None:
        """End the threads; those that hang, when they come back."""
        self.interrupted = True
        for jobs in self._idle:
            jobs.put(None)

    def _make_thread(self) -> SimpleQueue[tuple[Folder, Round] | None]:
        jobs: SimpleQueue[tuple[Folder, Round] | None] = SimpleQueue()
        threading.Thread(target=self._serve, args=(jobs,), name="journal", daemon=True).start()
        return jobs

    def _serve(self, jobs: SimpleQueue[tuple[Folder, Round] | None]) -> None:
        while (job := jobs.get()) is not None:
            folder, asked = job
            error: BaseException | None = None
            try:
                asked.work(folder)
            except BaseException as raised:  # noqa: BLE001 (carried to who asked)
                error = raised
            # Before the answer: who gets it may ask again at once.
            self._busy.discard(folder)
            self._idle.append(jobs)
            asked.answer(folder, error)
            del job, folder, asked, error
            if self.interrupted:
                jobs.put(None)


def _left(end: float) -> float:
    return min(LOOK_SECONDS_MAX, max(0.0, end - time.monotonic()))


def _late() -> OSError:
    return OSError(errno.ETIMEDOUT, "the drive hangs")
