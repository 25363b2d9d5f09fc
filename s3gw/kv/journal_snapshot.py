"""A snapshot, written to several drives at once and on without those that hang.

The rows belong to a transaction, hence to one thread: it reads and encodes them once, and hands the
pieces to the drives' threads (journal_threads.py). To each drive a few are on their way; one that
takes none for `BULK_SECONDS` is left behind. That is long, since pieces wait for the disk with all
that clients write meanwhile; nobody waits for a snapshot but one who has no drive left otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue

from s3gw.kv.journal_folder import Folder
from s3gw.kv.journal_format import Position, Row, snapshot_pieces
from s3gw.kv.journal_threads import LOOK_SECONDS_MAX, DriveThreads, Trouble

PIECES_AHEAD = 4
BULK_PATIENCES = 6
"""How many times longer than for an entry a drive is waited for that takes a lot."""


class _Feed:
    """Pieces on their way to one drive. `over`: nobody writes any more, or nobody reads."""

    def __init__(self, threads: DriveThreads) -> None:
        self._threads = threads
        self._pieces: Queue[bytes | None] = Queue(PIECES_AHEAD)
        self._given_up = False
        self.over = False

    def put(self, piece: bytes | None) -> None:
        """Hand over the next piece, None after the last one. Raises InterruptedError."""
        waited = 0.0
        while not self.over:
            try:
                self._pieces.put(piece, timeout=LOOK_SECONDS_MAX)
            except Full:
                waited += LOOK_SECONDS_MAX
            else:
                return
            if self._threads.interrupted:
                raise InterruptedError("the journal is being closed")
            if waited >= bulk_seconds(self._threads):
                self.give_up()

    def give_up(self) -> None:
        """Let the drive's thread end without the rest."""
        self.over = self._given_up = True
        if not self._pieces.full():
            self._pieces.put_nowait(None)

    def taken(self) -> Iterator[bytes]:
        """For the drive's thread. Raises OSError when it was given up."""
        while True:
            piece = self._pieces.get()
            if self._given_up:
                raise OSError("the rest of the snapshot did not come")
            if piece is None:
                return
            yield piece


def bulk_seconds(threads: DriveThreads) -> float:
    """How long a drive may make no step with something long."""
    return BULK_PATIENCES * threads.patience_seconds


def _no_more(folder: Folder) -> None:
    """The snapshot is all."""


def put_snapshot(
    threads: DriveThreads,
    folders: Iterable[Folder],
    at: Position,
    rows: Iterable[Row],
    then: Callable[[Folder], None] = _no_more,
) -> tuple[int, dict[Folder, Trouble]]:
    """Durably write the snapshot that segment `at.segment` continues to drives, and do something
    on each of them afterwards. Returns its size in bytes, and the drives that failed, and how.
    Raises what the rows raise, and InterruptedError."""
    feeds = {folder: _Feed(threads) for folder in folders}

    def take(folder: Folder) -> None:
        feed = feeds[folder]
        try:
            folder.put_snapshot(at.segment, feed.taken())
            then(folder)
        finally:
            feed.over = True

    begun = threads.start(feeds, take)
    for folder in begun.refused:
        feeds[folder].over = True
    limit = bulk_seconds(threads)
    size = 0
    try:
        for piece in snapshot_pieces(at, rows):
            size += len(piece)
            for feed in feeds.values():
                feed.put(piece)
            if all(feed.over for feed in feeds.values()):
                break
        for feed in feeds.values():
            feed.put(None)
    except BaseException:
        for feed in feeds.values():
            feed.give_up()
        # Else they would still look busy to who asks them next.
        threads.wait(begun, seconds=limit, patience=limit)
        raise
    return size, threads.wait(begun, seconds=limit, patience=limit)
