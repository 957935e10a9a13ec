"""Lift where a bandit gave out the variants, in worlds whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from attribution import AttributionError, Quantile, lift
from attribution.contrasts import Horizon
from tests.attribution.worlds import at_least

VALUES = {"a": 0.5, "b": 0.5, "c": 0.5}
ASKED: dict[str, Any] = {
    "variant": "variant",
    "baseline": "a",
    "metrics": ["y"],
    "probability": {name: f"p_{name}" for name in VALUES},
    "time": "at",
}


def bandit(rng: np.random.Generator, batches: int = 10, size: int = 200) -> pd.DataFrame:
    """Greedy but for a tenth, by the means so far; rewards are normal and noisy."""
    names = list(VALUES)
    total, seen = np.zeros(3), np.zeros(3)
    parts = []
    for batch in range(batches):
        best = int(np.argmax(total / np.maximum(seen, 1))) if batch else 0
        p = np.full(3, 1 / 3) if batch == 0 else np.full(3, 0.05)
        if batch:
            p[best] = 0.9
        drawn = rng.choice(3, size, p=p)
        y = rng.normal(np.array(list(VALUES.values()))[drawn], 1.0)
        total += np.bincount(drawn, y, 3)
        seen += np.bincount(drawn, minlength=3)
        part = pd.DataFrame({"variant": np.array(names)[drawn], "y": y})
        part["at"] = batch * size + np.arange(size)
        for name, share in zip(names, p, strict=True):
            part[f"p_{name}"] = share
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_adaptive_intervals_cover_and_plain_means_are_biased() -> None:
    rng = np.random.default_rng(1)
    logs = 400
    hits = tails = 0
    plain, weighted = [], []
    for _ in range(logs):
        frame = bandit(rng)
        [row, _] = lift(frame, **ASKED, horizon="fixed").results
        hits += row.low < 0 < row.high
        tails += row.low > 0
        weighted.append(row.mean)
        plain.append(frame.loc[frame["variant"] == "b", "y"].mean())
    assert at_least(hits, logs, 0.95)
    assert at_least(logs - tails, logs, 0.965)
    se = np.std(weighted) / np.sqrt(logs)
    assert abs(np.mean(weighted) - 0.5) < 4 * se
    # What the adaptive weights are for.
    assert np.mean(plain) < 0.5 - 4 * np.std(plain) / np.sqrt(logs)


def test_the_order_of_rows_does_not_matter_but_that_of_time_does() -> None:
    frame = bandit(np.random.default_rng(2))
    first = lift(frame, **ASKED).results
    assert lift(frame.sample(frac=1, random_state=1), **ASKED).results == first
    assert (first[0].interval, first[0].always_valid) == ("adaptive_sequence", True)
    [planned, _] = lift(frame, **ASKED, horizon="fixed").results
    assert (planned.interval, planned.always_valid) == ("adaptive", False)
    assert first[0].low < planned.low < planned.high < first[0].high


def test_variants_not_given_out_as_drawn_fail_the_sample_ratio() -> None:
    frame = bandit(np.random.default_rng(3))
    assert lift(frame, **ASKED).srm.verdict == "ok"
    lost = frame[(frame["variant"] != "b") | (frame.index % 2 == 0)]
    report = lift(lost, **ASKED)
    assert report.srm.verdict == "failed"
    assert np.isnan(report.results[0].difference)


def test_the_sample_ratio_counts_every_variant_that_it_tests() -> None:
    """Bonferroni over the variants that were tested; two variants are one test."""
    rng = np.random.default_rng(5)
    drawn = rng.choice(3, 3_000, p=[0.3, 0.34, 0.36])
    frame = pd.DataFrame({"variant": np.array(list("abc"))[drawn], "y": drawn, "at": drawn})
    thirds = frame.assign(p_a=1 / 3, p_b=1 / 3, p_c=1 / 3)
    alone = [
        lift(
            thirds.assign(
                variant=np.where(thirds["variant"] == name, "a", "b"), p_a=1 / 3, p_b=2 / 3
            ),
            **(ASKED | {"probability": {"a": "p_a", "b": "p_b"}}),
        ).srm.p_value
        for name in "abc"
    ]
    whole = lift(thirds, **ASKED).srm.p_value
    assert 0 < whole < 1
    assert whole == pytest.approx(3 * min(alone))


def test_sound_draws_are_not_doubted_at_any_of_ten_looks() -> None:
    rng = np.random.default_rng(4)
    alarms, logs = 0, 200
    for _ in range(logs):
        frame = bandit(rng)
        looks = [lift(frame.iloc[:n], **ASKED).srm.p_value for n in range(200, 2_001, 200)]
        alarms += min(looks) < 0.05
    assert at_least(logs - alarms, logs, 0.95)


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, {"time": None}, "`time` is missing"),
        ({}, {"time": "when"}, "`time` is 'when', which is not a column"),
        ({}, {"strata": "at"}, "`strata` is not for variants that a bandit gave out"),
        ({}, {"metrics": [Quantile("y")]}, "only means are compared"),
        ({}, {"baseline": "z"}, "of which `probability` names no column"),
        ({"p_a": 0.9}, {}, "does not sum to one, in 1,600 of 2,000 rows, first in row 0"),
        ({"p_a": 0.0, "p_b": 0.5, "p_c": 0.5}, {}, "is zero for what was drawn in"),
        ({"variant": "z"}, {}, "has no column of its probability in 2,000 of 2,000"),
        ({"at": None}, {}, "`at` is missing in 2,000"),
    ],
)
def test_bad_logs_are_refused(change: dict[str, Any], asked: dict[str, Any], message: str) -> None:
    frame = bandit(np.random.default_rng(5)).assign(**change)
    with pytest.raises(AttributionError, match=message):
        lift(frame, **(ASKED | asked))


def test_a_sequence_is_dual_to_its_p_value_and_waits_for_values_off_the_usual_one() -> None:
    frame = bandit(np.random.default_rng(7))
    for level in (0.05, 0.3):
        for row in lift(frame, **ASKED, alpha=level).results:
            assert (row.low > 0 or row.high < 0) == (row.p_value < level)
    sparse = frame.assign(y=frame["y"] * (frame.index % 20 == 0))
    cases: list[tuple[Horizon, int]] = [("always", 100), ("fixed", 20)]
    for horizon, needed in cases:
        said = {row.verdict for row in lift(sparse, **ASKED, horizon=horizon).results}
        assert any(f"values off the usual one; {needed} are needed" in each for each in said)


def test_too_few_units_of_a_variant_give_no_interval() -> None:
    frame = bandit(np.random.default_rng(6), batches=1, size=120)
    [row, _] = lift(frame, **ASKED).results
    assert "50 are needed" in row.verdict
