"""Work on the drives of a journal, all at once, and on without those that hang.

A disk that hangs fails no call: none returns. So each drive is asked in a thread, and one that is
late is left behind, as if it had failed. **Late is who comes `patience_seconds` after the first**:
a machine that is slow as a whole leaves no drive behind. Where there is none to compare with, the
caller says how long to wait.

A drive that was left behind is not asked again before its thread has come back. What that one did
meanwhile is no harm: a late entry is one that the set may have or not, at the end of a segment that
the drive's next one replaces; and nothing gets a name any more (`Folder.left_behind`).
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import JournalDamaged, NotContinued

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
# A thread is made only when all others are at work, and one that hangs is one drive's.
THREADS_MAX = 256

Trouble = OSError | JournalDamaged | NotContinued
"""What a drive may fail with."""

_Answers = SimpleQueue[tuple[Folder, BaseException | None]]


class DriveThreads:
    """Threads for one journal; used by one thread at a time."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._pool = ThreadPoolExecutor(THREADS_MAX, "journal")
        self._busy: set[Folder] = set()

    def hangs(self, folder: Folder) -> bool:
        """Whether the drive was left behind and has not come back."""
        return folder in self._busy

    def on_all(
        self,
        folders: Iterable[Folder],
        work: Callable[[Folder], object],
        *,
        seconds: float | None = None,
    ) -> dict[Folder, Trouble]:
        """Do something on drives at once; those that failed, and how. `seconds` is how long to wait
        at most also for the first one."""
        failed: dict[Folder, Trouble] = {}
        waiting: set[Folder] = set()
        answers: _Answers = SimpleQueue()
        for folder in folders:
            if folder in self._busy:
                failed[folder] = _late()
                continue
            self._busy.add(folder)
            folder.left_behind = False
            waiting.add(folder)
            self._pool.submit(self._do, folder, work, answers)
        end = None if seconds is None else time.monotonic() + seconds
        while waiting:
            try:
                left = None if end is None else max(0.0, end - time.monotonic())
                folder, error = answers.get(timeout=left)
            except Empty:
                for folder in waiting:
                    folder.left_behind = True
                    failed[folder] = _late()
                break
            waiting.discard(folder)
            if end is None:
                end = time.monotonic() + self._patience_seconds
            if isinstance(error, OSError | JournalDamaged | NotContinued):
                failed[folder] = error
            elif error is not None:
                raise error
        for folder, trouble in failed.items():
            log.warning("journal on %s failed: %s", folder.path, trouble)
        return failed

    def answers(self, folder: Folder) -> bool:
        """Whether a drive takes something in time."""
        return not self.on_all([folder], Folder.probe, seconds=self._patience_seconds)

    def _do(self, folder: Folder, work: Callable[[Folder], object], answers: _Answers) -> None:
        error: BaseException | None = None
        try:
            work(folder)
        except BaseException as raised:  # noqa: BLE001 (carried to who asked)
            error = raised
        self._busy.discard(folder)
        answers.put((folder, error))

    def close(self) -> None:
        self._pool.shutdown(wait=not self._busy)


def _late() -> OSError:
    return OSError(errno.ETIMEDOUT, "the drive hangs")
