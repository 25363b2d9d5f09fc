"""One row per measurement, and the goals beside them.

The goals are those the project set itself for UNSIGNED-PAYLOAD and fsync durability; MB is 10⁶
bytes. A figure without a goal is printed for comparison only.
"""

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

UP, CLUSTER = "up", "cluster"

# Row kind → goal per form. Server CPU in ms per MB or per operation; the list in seconds; memory in
# MiB above idle per gateway process.
GOALS: dict[str, dict[str, float]] = {
    "PUT": {UP: 4.0, CLUSTER: 7.0},
    "GET": {UP: 1.2, CLUSTER: 2.4},
    "4 KiB PUT": {UP: 3.0, CLUSTER: 7.0},
    "4 KiB GET": {UP: 1.2, CLUSTER: 2.0},
    "4 KiB HEAD": {UP: 0.6, CLUSTER: 0.8},
    "4 KiB DELETE": {UP: 1.5, CLUSTER: 2.5},
    "LIST": {UP: 0.12, CLUSTER: 0.25},
    "memory": {UP: 96.0, CLUSTER: 96.0},
}


@dataclass(frozen=True)
class Row:
    """A measurement. `judged` is the figure that the goal of `kind` is about."""

    name: str
    kind: str | None
    rate: float | None
    rate_unit: str
    p50_ms: float | None
    p99_ms: float | None
    cpu_ms: float | None
    cpu_unit: str
    judged: float | None
    judged_unit: str
    client_cpu_ms: float | None = None

    def goal(self, form: str) -> float | None:
        return GOALS[self.kind].get(form) if self.kind is not None else None

    def verdict(self, form: str) -> str:
        goal = self.goal(form)
        if goal is None or self.judged is None:
            return ""
        return "met" if self.judged <= goal else "MISSED"


def percentile(sorted_values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of the values lie, by nearest rank.

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.99), percentile([7], 0.5)
    (2, 4, 7)
    """
    rank = -(-len(sorted_values) * fraction // 1)
    return sorted_values[max(0, int(rank) - 1)]


_COLUMNS = ("", "rate", "p50 ms", "p99 ms", "server CPU", "client CPU", "goal", "")


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def _cells(row: Row, form: str) -> tuple[str, ...]:
    goal = row.goal(form)
    return (
        row.name,
        _number(row.rate, row.rate_unit),
        _number(row.p50_ms),
        _number(row.p99_ms),
        _number(row.cpu_ms, row.cpu_unit),
        _number(row.client_cpu_ms, row.cpu_unit),
        "" if goal is None else f"≤ {goal:g} {row.judged_unit}",
        row.verdict(form),
    )


class Table:
    """Prints rows as they come, in columns of fixed width."""

    _WIDTHS = (40, 12, 8, 8, 13, 13, 14, 8)

    def __init__(self, form: str) -> None:
        self._form = form
        self.rows: list[Row] = []

    def heading(self) -> None:
        self._line(_COLUMNS)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self._line(_cells(row, self._form))

    def _line(self, cells: Iterable[str]) -> None:
        first, *rest = cells
        padded = [first.ljust(self._WIDTHS[0])]
        padded += [cell.rjust(width) for cell, width in zip(rest, self._WIDTHS[1:], strict=True)]
        print("".join(padded).rstrip(), flush=True)

    def write_json(self, path: Path, about: dict[str, object]) -> None:
        rows = [
            {**asdict(row), "goal": row.goal(self._form), "verdict": row.verdict(self._form)}
            for row in self.rows
        ]
        machine = {
            "machine": platform.machine(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        }
        document = {"form": self._form, **about, **machine, "rows": rows}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
