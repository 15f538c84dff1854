import json
import subprocess
import sys

import pytest
from helpers import ROOT

from scripts.benchmark import row


@pytest.mark.parametrize(
    ("n", "low", "high"), [(20, 6, 15), (10, 2, 9), (8, 1, 8), (5, 1, 5), (1, 1, 1)]
)  # the binomial's 2.5 % quantiles at p = 0.5, from tables: 6, 2, 1, 0, 0
def test_the_interval_is_of_order_statistics(n, low, high):
    median_row = row("x", [float(i) for i in range(n, 0, -1)])
    assert (median_row.low, median_row.high) == (low, high)
    assert median_row.ratio == (n + 1) / 2


@pytest.mark.parametrize(
    ("ratios", "goal", "met"),
    [
        ([0.9, 1.01, 1.05], "<= 1.01", True), ([1.0, 1.02, 1.05], "<= 1.01", False), ([1.0], "", None),
        ([3.0, 4.0, 4.1], ">= 4", True), ([3.0, 3.9, 4.5], ">= 4", False),
    ],
)  # fmt: skip
def test_a_goal_is_met_when_the_median_meets_it(ratios, goal, met):
    assert row("x", ratios, goal).met is met


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_benchmark_prints_a_list_of_rows():
    words = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "--quick", "--json"]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = json.loads(ran.stdout)
    assert len(rows) >= 15
    assert all(set(row) == {"name", "ratio", "low", "high", "goal", "met"} for row in rows)
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in rows)
    assert all(row["met"] is not None for row in rows if row["goal"])
