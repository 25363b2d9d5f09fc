"""What happened in a run, line by line: two runs of one seed have the same, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Trace:
    """Lines with virtual times. Kept as a digest, and whole when asked to."""

    def __init__(self, clock: Callable[[], float], *, keep: bool = False) -> None:
        self._clock = clock
        self._digest = hashlib.sha256()
        self._keep = keep
        self.lines: list[str] = []
        self.count = 0

    def note(self, what: str, *details: object) -> None:
        line = f"{self._clock():.6f} {what} {' '.join(map(_text, details))}"
        self._digest.update(line.encode() + b"\n")
        self.count += 1
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        return self._digest.hexdigest()


def _text(detail: object) -> str:
    return repr(detail)[1:] if isinstance(detail, bytes) else str(detail)
