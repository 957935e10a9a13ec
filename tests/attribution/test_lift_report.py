"""What a lift report says beside its intervals: guardrails, segments, corrections, words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from attribution import AttributionError, Mean, Prior, Proportion, lift
from attribution.multiplicity import adjusted
from tests.attribution.worlds import at_least

ASKED: dict[str, Any] = {"variant": "variant", "baseline": "a"}


def frame_of(rng: np.random.Generator, n: int = 8_000) -> pd.DataFrame:
    new = rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "variant": np.where(new, "b", "a"),
            "probability": 0.5,
            "click": rng.random(n) < np.where(new, 0.5, 0.4),
            "margin": rng.normal(np.where(new, 9.5, 10.0), 1.0),
            "complaint": rng.random(n) < np.where(new, 0.10, 0.05),
            "country": rng.choice(["de", "fr", "it"], n),
        }
    )


def test_clicks_up_while_margin_and_complaints_worsen_is_a_finding() -> None:
    report = lift(
        frame_of(np.random.default_rng(0)),
        metrics=[
            Proportion("click", better="up"),
            Mean("margin", better="up", margin=0.1),
            Proportion("complaint", better="down", margin=0.01),
        ],
        **ASKED,
    )
    assert [guard.verdict for guard in report.guardrails] == ["broken", "broken"]
    [finding] = report.findings
    assert finding.startswith("b gains click (+0.0938) and harms margin (-0.")
    assert "complaint (+0.0" in finding
    advice = [row.advice.split(",")[0] for row in report.results]
    assert advice == ["better", "worse", "worse"]


def test_a_guardrail_that_no_interval_judges_stays_open() -> None:
    frame = frame_of(np.random.default_rng(1), 150)
    report = lift(frame, metrics=[Mean("margin", better="up", margin=0.1)], **ASKED)
    assert report.results[0].interval == "none"
    assert "has only" in report.results[0].verdict
    assert report.results[0].advice.startswith("wait")
    assert report.guardrails[0].verdict == "open"


def test_corrected_p_values_are_statsmodels() -> None:
    p_values = np.array([0.01, 0.04, np.nan, 0.03, 0.002, 0.9, 0.04])
    known = ~np.isnan(p_values)
    for ours, theirs in (("holm", "holm"), ("benjamini_hochberg", "fdr_bh")):
        expected = multipletests(p_values[known], method=theirs)[1]
        found = adjusted(p_values, ours)  # type: ignore[arg-type]  # from a table of names
        np.testing.assert_allclose(found[known], expected, rtol=1e-12)
        assert np.isnan(found[2])


def test_the_verdict_follows_the_corrected_p_value() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"variant": rng.choice(["a", "b"], 2_000)})
    for number in range(12):
        frame[f"m{number}"] = rng.normal(size=2_000)
    new = (frame["variant"] == "b").to_numpy()
    m0 = frame["m0"].to_numpy()
    frame["m0"] = m0 + new * (2.3 * np.sqrt(1 / 500) - m0[new].mean() + m0[~new].mean())
    asked = ASKED | {"metrics": [f"m{number}" for number in range(12)], "horizon": "fixed"}
    plain, holm = lift(frame, **asked), lift(frame, **asked, correction="holm")
    assert plain.results[0].verdict == "higher"
    assert holm.results[0].verdict == "no difference shown"
    assert holm.results[0].p_value == plain.results[0].p_value < 0.05 < holm.results[0].p_adjusted


def test_the_chance_to_win_is_the_normal_posteriors() -> None:
    """Worked by hand: precision-weighted mean of the estimate and a prior around zero."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"variant": rng.choice(["a", "b"], 600)})
    frame["y"] = rng.normal(size=600) * 3 + (frame["variant"] == "b") * 0.2
    for better, prior in (("up", Prior()), ("down", Prior(0.5))):
        [row] = lift(
            frame,
            metrics=[Mean("y", better="up" if better == "up" else "down")],
            horizon="fixed",
            prior=prior,
            **ASKED,
        ).results
        parts = [frame.loc[frame["variant"] == name, "y"] for name in "ab"]
        variance = sum(part.var() / len(part) for part in parts)
        s2 = (prior.sd * parts[0].std()) ** 2
        precision = 1 / variance + 1 / s2
        posterior = stats.norm(row.difference / variance / precision, precision**-0.5)
        chance = posterior.sf(0) if better == "up" else posterior.cdf(0)
        assert row.chance_to_win == pytest.approx(chance, rel=1e-9)


def test_segments_are_compared_and_equal_effects_seldom_called_different() -> None:
    rng = np.random.default_rng(4)
    alarms, logs = 0, 300
    frame, report = frame_of(rng, 900), None
    for _ in range(logs):
        frame = frame_of(rng, 900)
        report = lift(frame, metrics=["margin"], segments="country", horizon="fixed", **ASKED)
        [interaction] = report.interactions
        alarms += interaction.p_value < 0.05
    assert at_least(logs - alarms, logs, 0.95)
    assert report is not None
    assert [part.segment for part in report.segments] == ["de", "fr", "it"]
    assert sum(part.n for part in report.segments) == report.results[0].n
    italian = (frame["country"] == "it") & (frame["variant"] == "b")
    frame["margin"] += 1.5 * italian
    report = lift(frame, metrics=["margin"], segments="country", horizon="fixed", **ASKED)
    assert report.interactions[0].verdict == "differs"
    assert len(report.segment_table()) == 3


def test_exposed_units_are_reported_beside_all_where_exposure_is_the_same() -> None:
    rng = np.random.default_rng(5)
    frame = frame_of(rng)
    frame["seen"] = rng.random(len(frame)) < 0.3
    report = lift(frame, metrics=["margin"], exposed="seen", probability="probability", **ASKED)
    assert [row.population for row in report.results] == ["assigned", "exposed"]
    assert report.results[1].n == ((frame["variant"] == "b") & frame["seen"]).sum()
    # What is seen depends on the variant: those who see it are different people.
    frame["seen"] = rng.random(len(frame)) < np.where(frame["variant"] == "b", 0.4, 0.25)
    report = lift(frame, metrics=["margin"], exposed="seen", probability="probability", **ASKED)
    assert report.results[0].verdict == "lower"
    assert "exposure depends on the variant" in report.results[1].verdict
    assert np.isnan(report.results[1].difference)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (None, "`seen` is missing in 8,000 of 8,000 rows"),
        ("yes", "holds other than true and false"),
        (False, "is true of no unit"),
    ],
)
def test_exposure_that_was_not_logged_everywhere_is_refused(seen: Any, message: str) -> None:
    frame = frame_of(np.random.default_rng(6)).assign(seen=seen)
    with pytest.raises(AttributionError, match=message):
        lift(frame, metrics=["margin"], exposed="seen", **ASKED)


def test_exposure_without_probabilities_cannot_be_checked_and_gives_no_number() -> None:
    frame = frame_of(np.random.default_rng(7)).assign(seen=True)
    report = lift(frame, metrics=["margin"], exposed="seen", **ASKED)
    assert np.isnan(report.results[1].difference)


def test_the_report_is_json() -> None:
    rng = np.random.default_rng(8)
    report = lift(frame_of(rng), metrics=["margin"], segments="country", **ASKED).to_json()
    assert report.keys() == {
        "srm", "results", "guardrails", "segments", "interactions", "periods", "trends",
        "findings", "notes",
    }  # fmt: skip
    assert report["srm"] == {"p_value": None, "verdict": "not_checked"}
    assert "normal around 0 with 0.1 of a unit's standard deviation" in report["notes"][1]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"column": ""}, "`column` of a metric is empty"),
        ({"column": "y", "cap": 1.0, "floor": 2.0}, "The floor must lie below the cap"),
        ({"column": "y", "better": "left"}, "Say up or down"),
        ({"column": "y", "margin": 0.1}, "direction must be said"),
        ({"column": "y", "margin": -0.1, "better": "up"}, "`margin` of 'y' is -0.1"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(metric: dict[str, Any], message: str) -> None:
    with pytest.raises(AttributionError, match=message):
        Mean(**metric)
    with pytest.raises(AttributionError, match="`prior` has sd 0"):
        Prior(0)
    with pytest.raises(AttributionError, match="Give each a `name` of its own"):
        lift(frame_of(np.random.default_rng(9)), metrics=["margin", "margin"], **ASKED)
