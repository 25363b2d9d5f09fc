"""The health score: 0 when nothing works, 100 when nothing is wrong, and the reasons.

Each fault that is there takes points off, or caps the score, or both; RULES is the whole list. So
another fault, or more of the same, never raises the score (a test proves it for any facts).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DRIVE_FULL_SHARE = 0.95
ENGINE_RED_SHARE = 0.80
ENGINE_REFUSES_SHARE = 0.95
REPAIR_OLD_SECONDS = 3600.0
REPAIR_VERY_OLD_SECONDS = 24 * 3600.0
CERTIFICATE_SOON_DAYS = 14.0
CERTIFICATE_URGENT_DAYS = 3.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the score is made of. Blobs are counted by how much redundancy they have left:
    `reduced` have lost some, `critical` do not survive one more loss, `lost` cannot be read.
    `merge_alarm` is the oldest of the `merge_alarms`."""

    engine_error: str = ""
    ledger_error: str = ""
    writable_nodes: int = 1
    nodes_needed: int = 1
    nodes_down: int = 0
    drives_full: int = 0
    damaged_revisions: int = 0
    lost_blobs: int = 0
    critical_blobs: int = 0
    reduced_blobs: int = 0
    repair_oldest_seconds: float = 0.0
    hold_down: bool = False
    merge_alarms: int = 0
    merge_alarm: str = ""
    engine_share: float = 0.0
    certificate_days_left: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """`fault` counts how bad it is (0: not at all). Each count takes `points` off, up to
    `points_max` in all; the score is at most `cap` while there is any."""

    name: str
    fault: Callable[[Facts], int]
    reason: Callable[[Facts], str]
    cap: int = 100
    points: int = 0
    points_max: int = 0


def _days_left_below(limit: float) -> Callable[[Facts], int]:
    def below(facts: Facts) -> int:
        return int(facts.certificate_days_left is not None and facts.certificate_days_left < limit)

    return below


RULES: tuple[Rule, ...] = (
    Rule(
        "metadata engine does not answer",
        lambda f: int(bool(f.engine_error)),
        lambda f: f"the metadata engine does not answer: {f.engine_error}",
        cap=0,
    ),
    Rule(
        "fewer nodes than writes need",
        lambda f: max(0, f.nodes_needed - f.writable_nodes),
        lambda f: f"{f.writable_nodes} nodes take writes, {f.nodes_needed} are needed",
        cap=10,
    ),
    Rule(
        "blobs lost",
        lambda f: f.lost_blobs,
        lambda f: f"{f.lost_blobs} blobs cannot be read from the nodes that answer",
        cap=20,
    ),
    Rule(
        "metadata engine ≥ 95 % full",
        lambda f: int(f.engine_share >= ENGINE_REFUSES_SHARE),
        lambda f: "the metadata engine is nearly full: writes that grow it are refused",
        cap=30,
    ),
    Rule(
        "blobs at critical redundancy",
        lambda f: f.critical_blobs,
        lambda f: f"{f.critical_blobs} blobs do not survive one more loss",
        cap=50,
    ),
    Rule(
        "removal of orphans stopped",
        lambda f: f.merge_alarms,
        lambda f: (
            f"in {f.merge_alarms} placement groups too many blobs have no reference, and nothing "
            f"is removed there: {f.merge_alarm}"
        ),
        cap=50,
    ),
    Rule(
        "metadata engine ≥ 80 % full",
        lambda f: int(f.engine_share >= ENGINE_RED_SHARE),
        lambda f: f"the metadata engine is {f.engine_share:.0%} full",
        cap=70,
    ),
    Rule(
        "certificate expires within 3 days",
        _days_left_below(CERTIFICATE_URGENT_DAYS),
        lambda f: f"a certificate expires in {f.certificate_days_left:.1f} days: rotate it now",
        cap=50,
    ),
    Rule(
        "durability ledger not known",
        lambda f: int(bool(f.ledger_error)),
        lambda f: f"how redundant the blobs are is not known: {f.ledger_error}",
        cap=80,
    ),
    Rule(
        "blobs at reduced redundancy",
        lambda f: f.reduced_blobs,
        lambda f: f"{f.reduced_blobs} blobs have lost some of their redundancy",
        cap=80,
    ),
    Rule(
        "nodes down",
        lambda f: f.nodes_down,
        lambda f: f"{f.nodes_down} nodes of the layout do not answer",
        points=10,
        points_max=30,
    ),
    Rule(
        "rebuild held down",
        lambda f: int(f.hold_down),
        lambda f: "many nodes vanished at once: rebuild waits for the hold-down to end",
        points=10,
        points_max=10,
    ),
    Rule(
        "drives ≥ 95 % full",
        lambda f: f.drives_full,
        lambda f: f"{f.drives_full} drives are at least {DRIVE_FULL_SHARE:.0%} full",
        points=10,
        points_max=30,
    ),
    Rule(
        "revisions of placement groups damaged",
        lambda f: f.damaged_revisions,
        lambda f: (
            f"on drives {f.damaged_revisions} revisions of placement groups were damaged: nothing "
            "of these groups is deleted there until they are healed"
        ),
        points=5,
        points_max=10,
    ),
    Rule(
        "repair queue older than an hour",
        lambda f: int(f.repair_oldest_seconds >= REPAIR_OLD_SECONDS),
        lambda f: f"the oldest repair has waited for {f.repair_oldest_seconds / 3600:.1f} hours",
        points=5,
        points_max=5,
    ),
    Rule(
        "repair queue older than a day",
        lambda f: int(f.repair_oldest_seconds >= REPAIR_VERY_OLD_SECONDS),
        lambda f: "repairs have waited for more than a day: is there a node to repair onto?",
        points=15,
        points_max=15,
    ),
    Rule(
        "certificate expires within 14 days",
        _days_left_below(CERTIFICATE_SOON_DAYS),
        lambda f: f"a certificate expires in {f.certificate_days_left:.0f} days",
        points=10,
        points_max=10,
    ),
)


def score(facts: Facts) -> tuple[int, list[str]]:
    """The score and its reasons, the worst first.

    >>> score(Facts())
    (100, [])
    >>> score(Facts(nodes_down=2, reduced_blobs=7))[0]
    80
    """
    cap, points, reasons = 100, 0, []
    for rule in RULES:
        count = rule.fault(facts)
        if count > 0:
            cap = min(cap, rule.cap)
            points += min(rule.points * count, rule.points_max)
            reasons.append(rule.reason(facts))
    return max(0, min(cap, 100 - points)), reasons


def table() -> str:
    """The rules as the table of docs/operations.md."""
    lines = ["| fault | the score |", "|---|---|"]
    for rule in RULES:
        effects = []
        if rule.cap < 100:
            effects.append(f"at most {rule.cap}" if rule.cap else "0")
        if rule.points:
            each = f" each, at most −{rule.points_max}" if rule.points_max > rule.points else ""
            effects.append(f"−{rule.points}{each}")
        lines.append(f"| {rule.name} | {', '.join(effects)} |")
    return "\n".join(lines) + "\n"
