"""What the admin command line shows: aligned tables, sizes and times for people, progress bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
BAR_WIDTH = 30


def size(count: float) -> str:
    """Bytes with a unit.

    >>> size(0), size(1023), size(1536), size(5 * 2**40)
    ('0 B', '1023 B', '1.5 KiB', '5.0 TiB')
    """
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.2), duration(59.9), duration(61), duration(7260), duration(200_000)
    ('0s', '59s', '1m 1s', '2h 1m', '2d 7h')
    """
    whole = int(seconds)
    days, hours, minutes, rest = (
        whole // 86_400,
        whole // 3600 % 24,
        whole // 60 % 60,
        whole % 60,
    )
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def moment(ms: int) -> str:
    """Unix milliseconds as UTC; "-" for never."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000)) if ms else "-"


def plain(value: Any) -> str:
    """A value as text that cannot steer a terminal: names come from clients.

    >>> plain("a\\x1b[2J"), plain(True), plain(None), plain("ü")
    ('a\\\\x1b[2J', 'yes', '-', 'ü')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(value)
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned by spaces; numbers and sizes to the right.

    >>> print(table(["node", "slots"], [["d0", 7], ["node-10", 12]]))
    node     slots
    d0           7
    node-10     12
    """
    lines = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    right = [
        len(lines) > 1 and all(line[column][:1].isdigit() for line in lines[1:])
        for column in range(len(headings))
    ]
    shown = []
    for line in lines:
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one to a line.

    >>> print(facts([("epoch", 3), ("store", "ab")]))
    epoch  3
    store  ab
    """
    listed = [(name, plain(value)) for name, value in pairs]
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in listed)


class Bar:
    """Progress of a long job: one line, drawn again and again, on a terminal; else many."""

    def __init__(
        self, stream: TextIO, text: Callable[[Mapping[str, Any]], tuple[float, str]]
    ) -> None:
        """`text` gives how much is done (0 to 1) and the words beside the bar."""
        self._stream = stream
        self._text = text
        self._drawn = ""

    def show(self, state: Mapping[str, Any]) -> None:
        """Draw it."""
        share, words = self._text(state)
        if self._stream.isatty():
            full = int(BAR_WIDTH * share)
            line = f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {share:4.0%}  {words}"
            self._stream.write("\r" + line.ljust(len(self._drawn)))
            self._drawn = line
        elif words != self._drawn:
            self._stream.write(f"{share:.0%}  {words}\n")
            self._drawn = words
        self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._drawn and self._stream.isatty():
            self._stream.write("\n")
