"""The health score: one more fault never raises it, and every fault says so."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.admin.health import RULES, Facts, score, table

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
COUNTS = st.integers(0, 50)
SHARES = st.floats(0, 1)
DAYS = st.none() | st.floats(-10, 400)

# What makes each fact worse.
WORSE = {
    "engine_error": st.just("gone"),
    "ledger_error": st.just("slow"),
    "writable_nodes": st.integers(0, 5),
    "nodes_needed": st.integers(5, 60),
    "nodes_down": COUNTS,
    "drives_full": COUNTS,
    "damaged_revisions": COUNTS,
    "lost_blobs": COUNTS,
    "critical_blobs": COUNTS,
    "reduced_blobs": COUNTS,
    "repair_oldest_seconds": st.floats(0, 10**6),
    "hold_down": st.just(True),
    "merge_alarms": COUNTS,
    "merge_alarm": st.just("many"),
    "engine_share": SHARES,
    "certificate_days_left": DAYS,
}
FACTS = st.builds(
    Facts,
    engine_error=st.sampled_from(["", "gone"]),
    ledger_error=st.sampled_from(["", "slow"]),
    writable_nodes=COUNTS,
    nodes_needed=st.integers(1, 5),
    nodes_down=COUNTS,
    drives_full=COUNTS,
    damaged_revisions=COUNTS,
    lost_blobs=COUNTS,
    critical_blobs=COUNTS,
    reduced_blobs=COUNTS,
    repair_oldest_seconds=st.floats(0, 10**6),
    hold_down=st.booleans(),
    merge_alarms=COUNTS,
    merge_alarm=st.just("many"),
    engine_share=SHARES,
    certificate_days_left=DAYS,
)


def worse(facts: Facts, name: str, value: object) -> Facts:
    """The facts with one of them at least as bad as it was."""
    old = getattr(facts, name)
    if name == "writable_nodes":
        value = min(old, value)
    elif name == "certificate_days_left":
        value = value if old is None else old if value is None else min(old, value)
    else:
        value = max(old, value)
    return replace(facts, **{name: value})


@given(facts=FACTS, data=st.data())
def test_one_more_fault_never_raises_the_score(facts: Facts, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([field.name for field in fields(Facts)]))
    faulty = worse(facts, name, data.draw(WORSE[name]))
    before, reasons = score(facts)
    after, more = score(faulty)
    assert 0 <= after <= before <= 100
    assert len(more) >= len(reasons)
    assert (before == 100) == (not reasons)


FAULTS = {
    "metadata engine does not answer": (Facts(engine_error="gone"), 0),
    "fewer nodes than writes need": (Facts(writable_nodes=2, nodes_needed=3), 10),
    "blobs lost": (Facts(lost_blobs=1), 20),
    "metadata engine ≥ 95 % full": (Facts(engine_share=0.95), 30),
    "blobs at critical redundancy": (Facts(critical_blobs=1), 50),
    "removal of orphans stopped": (Facts(merge_alarms=1), 50),
    "metadata engine ≥ 80 % full": (Facts(engine_share=0.80), 70),
    "certificate expires within 3 days": (Facts(certificate_days_left=2.9), 50),
    "durability ledger not known": (Facts(ledger_error="slow"), 80),
    "blobs at reduced redundancy": (Facts(reduced_blobs=1), 80),
    "nodes down": (Facts(nodes_down=2), 80),
    "rebuild held down": (Facts(hold_down=True), 90),
    "drives ≥ 95 % full": (Facts(drives_full=1), 90),
    "revisions of placement groups damaged": (Facts(damaged_revisions=1), 95),
    "repair queue older than an hour": (Facts(repair_oldest_seconds=3600), 95),
    "repair queue older than a day": (Facts(repair_oldest_seconds=86_400), 80),
    "certificate expires within 14 days": (Facts(certificate_days_left=13.9), 90),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_its_effect_alone(rule: object) -> None:
    facts, expected = FAULTS[rule.name]  # type: ignore[attr-defined]
    found, reasons = score(facts)
    assert found == expected
    assert rule.reason(facts) in reasons  # type: ignore[attr-defined]


def test_the_table_of_the_rules_is_in_the_documents() -> None:
    assert table() in OPERATIONS.read_text(), "bring it up to date: s3gw.admin.health.table()"
