"""The simulation of data loss against a closed formula, and against what must hold of any."""

from itertools import pairwise
from pathlib import Path

import pytest

from bench.durability import (
    CYCLES,
    FAILURES_PER_YEAR,
    HOURS_PER_YEAR,
    REPAIR_HOURS,
    SEED,
    Cluster,
    Estimate,
    estimate,
    shown,
)
from erasure.scheme import Scheme


def test_one_group_over_all_nodes_loses_as_the_formula_says() -> None:
    """Six nodes and 4+2: any third failure loses. A birth and death chain with rare failures:
    6f, then 5f against one repair, then 4f against two."""
    failures, repairs = FAILURES_PER_YEAR / HOURS_PER_YEAR, 1 / 6.0
    expected = 6 * FAILURES_PER_YEAR * (5 * failures / repairs) * (4 * failures / (2 * repairs))
    found = estimate(Cluster(Scheme.parse("4+2"), 6), 6.0, cycles=4000, seed=1)
    assert found.per_year == pytest.approx(expected, rel=0.1)
    assert 0 < found.standard_error < 0.05 * expected


def test_frequent_failures_agree_with_a_simulation_without_bias() -> None:
    """2+1 on 20 nodes, repaired in a month: loss is common enough to be counted as it is."""
    cluster = Cluster(Scheme.parse("2+1"), 20)
    biased = estimate(cluster, 720.0, cycles=4000, seed=2)
    plain = estimate(cluster, 720.0, cycles=20_000, seed=3, bias=0.0, aimed=0.0)
    difference = abs(biased.per_year - plain.per_year)
    assert difference < 4 * (biased.standard_error + plain.standard_error)
    assert plain.standard_error < 0.1 * plain.per_year


@pytest.mark.parametrize("text", ["4+2", "8+3"])
def test_a_slower_repair_loses_more(text: str) -> None:
    cluster = Cluster(Scheme.parse(text), 100)
    found = [estimate(cluster, hours, cycles=2000, seed=4) for hours in REPAIR_HOURS]
    assert all(fast.per_year < slow.per_year for fast, slow in pairwise(found))


def test_the_same_seed_gives_the_same_figure() -> None:
    cluster = Cluster(Scheme.parse("4+2"), 10)
    first, again = (estimate(cluster, 1.0, cycles=200, seed=5) for _ in range(2))
    assert first == again != estimate(cluster, 1.0, cycles=200, seed=6)


def test_an_estimate_says_how_sure_it_is() -> None:
    assert shown(Estimate(1.2e-9, 4.8e-11)) == "1.2e-09 ± 4 %"
    assert shown(Estimate(0.0, 0.0)) == "none seen"


def test_the_documented_table_is_what_a_run_gives() -> None:
    text = (Path(__file__).parents[2] / "docs" / "durability.md").read_text()
    table = text.split("<!-- durability:begin -->")[1].split("<!-- durability:end -->")[0]
    documented = [cell.strip() for cell in table.strip().splitlines()[2].strip("|").split("|")]
    cluster = Cluster(Scheme.parse("4+2"), 10)
    found = [estimate(cluster, hours, cycles=CYCLES, seed=SEED) for hours in REPAIR_HOURS]
    assert documented == ["4+2", "10", *map(shown, found)]
