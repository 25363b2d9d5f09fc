"""What every engine asserts of a call before it does anything, so that a caller's mistake fails
in the same way on all of them."""

from __future__ import annotations

from collections.abc import Sequence

from s3gw import limits
from s3gw.kv.interface import At, CommitTooLarge, Delete, Guard, Key, Put, Write


def check_commit(guards: Sequence[Guard], writes: Sequence[Write]) -> None:
    """Raise CommitTooLarge when the commit is over the limits of limits.py, ValueError when it
    writes nothing, an empty key, or a key twice. Bytes are those of all keys and values."""
    if len(writes) > limits.COMMIT_OPERATIONS_MAX:
        raise CommitTooLarge(f"{len(writes)} writes, at most {limits.COMMIT_OPERATIONS_MAX}")
    if len(guards) > limits.COMMIT_GUARDS_MAX:
        raise CommitTooLarge(f"{len(guards)} guards, at most {limits.COMMIT_GUARDS_MAX}")
    if not writes:
        raise ValueError("a commit without writes")
    size = 0
    keys: set[Key] = set()
    for write in writes:
        keys.add(write.key)
        size += len(write.key)
        if type(write) is Put:
            size += len(write.value)
        elif type(write) is not Delete:
            raise ValueError(f"{write!r} is not a write")
    if len(keys) != len(writes):
        raise ValueError("a key is written twice in one commit")
    if b"" in keys:
        raise ValueError("the empty key cannot be written")
    for guard in guards:
        size += len(guard.key) if type(guard) is At else len(guard.start) + len(guard.end)  # type: ignore[union-attr]
    if size > limits.COMMIT_BYTES_MAX:
        raise CommitTooLarge(f"{size} bytes, at most {limits.COMMIT_BYTES_MAX}")


def check_scan(limit: int) -> None:
    """Raise ValueError unless `limit` is 1..SCAN_ITEMS_MAX."""
    if not 1 <= limit <= limits.SCAN_ITEMS_MAX:
        raise ValueError(f"limit {limit} is not in 1..{limits.SCAN_ITEMS_MAX}")


def check_ttl(ttl_seconds: int) -> None:
    """Raise ValueError unless a lease's time is at least one second."""
    if ttl_seconds < 1:
        raise ValueError(f"a lease of {ttl_seconds} s")


def prefix_end(prefix: Key) -> Key | None:
    """The first key after all keys that start with `prefix`; None when there is none.

    >>> prefix_end(b"a/"), prefix_end(bytes([1, 255])), prefix_end(b"")
    (b'a0', b'\\x02', None)
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
