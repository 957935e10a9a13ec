"""Four groups and several surfaces, in worlds whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from attribution import AttributionError, Mean, Surface, across_surfaces, value_of_learning
from tests.attribution.worlds import at_least

SURFACES = {"mail": Surface("mail", "p_mail"), "app": Surface("app", "p_app")}


def campaign(rng: np.random.Generator, n: int = 4_000) -> pd.DataFrame:
    """Mail brings .3, the app .2, and both together .1 less than their sum."""
    mail, app = rng.random(n) < 0.6, rng.random(n) < 0.3
    frame = pd.DataFrame({"mail": mail, "app": app})
    frame["p_mail"] = np.where(mail, 0.6, 0.4)
    frame["p_app"] = np.where(app, 0.3, 0.7)
    frame["sales"] = 1 + 0.3 * mail + 0.2 * app - 0.1 * (mail & app) + rng.normal(size=n)
    frame["last"] = np.select([app, mail], ["app", "mail"], "nothing")
    return frame


def test_effects_of_surfaces_are_those_of_the_saturated_regression() -> None:
    """Reference: statsmodels OLS on both factors, coded ±½, and their product."""
    frame = campaign(np.random.default_rng(1))
    report = across_surfaces(frame, surfaces=SURFACES, outcome="sales")
    found = {effect.name: effect.difference for effect in report.effects}
    a, b = frame["mail"].to_numpy() - 0.5, frame["app"].to_numpy() - 0.5
    fit = sm.OLS(frame["sales"], np.column_stack([np.ones(len(a)), a, b, a * b])).fit()
    for name, coefficient in zip(("mail", "app", "mail × app"), fit.params[1:], strict=True):
        assert found[name] == pytest.approx(coefficient, rel=1e-9)
    cells = frame.groupby(["mail", "app"])["sales"].mean()
    assert found["all"] == pytest.approx(cells[True, True] - cells[False, False], rel=1e-9)


def test_effects_of_surfaces_are_covered_and_last_touch_is_not_near_them() -> None:
    rng = np.random.default_rng(2)
    truth = {"all": 0.4, "mail": 0.25, "app": 0.15, "mail × app": -0.1}
    logs, hits = 120, dict.fromkeys(truth, 0)
    report = None
    for _ in range(logs):
        report = across_surfaces(
            campaign(rng), surfaces=SURFACES, outcome="sales", last_touch="last"
        )
        assert report.srm.verdict == "ok"
        for effect in report.effects:
            hits[effect.name] += effect.low < truth[effect.name] < effect.high
    assert all(at_least(hit, logs, 0.95) for hit in hits.values()), hits
    assert report is not None
    # Sales of 1 that need no surface are credited to the last one touched.
    assert report.last_touch["app"] > 2 * truth["app"]
    assert report.table()["kind"].tolist() == ["total", "surface", "surface", "interaction"]


def test_three_surfaces_have_three_interactions() -> None:
    rng = np.random.default_rng(3)
    frame = campaign(rng, 8_000)
    frame["web"] = rng.random(len(frame)) < 0.5
    frame["p_web"] = 0.5
    surfaces = SURFACES | {"web": Surface("web", "p_web")}
    report = across_surfaces(frame, surfaces=surfaces, outcome="sales")
    kinds = [effect.kind for effect in report.effects]
    assert kinds == ["total", *["surface"] * 3, *["interaction"] * 3]


def test_a_lost_cell_fails_the_sample_ratio_and_gives_no_effect() -> None:
    frame = campaign(np.random.default_rng(4))
    kept = frame[~(frame["mail"] & frame["app"]) | (frame.index % 3 == 0)]
    report = across_surfaces(kept, surfaces=SURFACES, outcome="sales")
    assert report.srm.verdict == "failed"
    assert np.isnan([effect.difference for effect in report.effects]).all()


@pytest.mark.parametrize(
    ("change", "surfaces", "message"),
    [
        ({}, {"mail": Surface("mail", "p_mail")}, "fewer than two"),
        ({"mail": 2}, SURFACES, "`mail` is neither true nor false in 4,000 of 4,000 rows"),
        ({"p_app": 0.0}, SURFACES, "not in"),
        ({"app": 0}, SURFACES, "has 0 units with an outcome where app acted"),
        ({"sales": 0.0}, SURFACES, None),
    ],
)
def test_bad_logs_of_surfaces_are_refused(
    change: dict[str, Any], surfaces: dict[str, Surface], message: str | None
) -> None:
    frame = campaign(np.random.default_rng(5)).assign(**change)
    if message is None:
        report = across_surfaces(frame, surfaces=surfaces, outcome="sales")
        assert {effect.verdict[:34] for effect in report.effects} == {
            "no interval: a combination has onl"
        }
        return
    with pytest.raises(AttributionError, match=message):
        across_surfaces(frame, surfaces=surfaces, outcome="sales")


GROUPS = {"learned": "bandit", "random": "random", "usual": "newsletter", "none": "holdout"}


def groups(rng: np.random.Generator, n: int = 8_000) -> pd.DataFrame:
    value = {"bandit": 1.5, "random": 1.2, "newsletter": 1.3, "holdout": 1.0}
    variant = rng.choice(list(value), n)
    frame = pd.DataFrame({"variant": variant, "probability": 0.25})
    frame["y"] = rng.normal(frame["variant"].map(value), 1.0)
    return frame


def test_the_value_of_learning_is_told_apart_from_that_of_acting() -> None:
    frame = groups(np.random.default_rng(6))
    reports = value_of_learning(
        frame, variant="variant", groups=GROUPS, metrics=[Mean("y")], probability="probability"
    )
    effects = {name: report.results[0] for name, report in reports.items()}
    truth = {
        "learning": 0.3, "acting": 0.2, "business as usual": 0.3, "learning over usual": 0.2,
        "all": 0.5,
    }  # fmt: skip
    assert list(effects) == list(truth)
    for name, expected in truth.items():
        assert effects[name].low < expected < effects[name].high
    parts = effects["learning"].difference + effects["acting"].difference
    assert effects["all"].difference == pytest.approx(parts, rel=1e-9)
    assert {report.srm.verdict for report in reports.values()} == {"ok"}


def test_pairs_of_which_one_group_is_absent_are_left_out() -> None:
    frame = groups(np.random.default_rng(7))
    fewer = {name: GROUPS[name] for name in ("learned", "none")}
    assert list(value_of_learning(frame, variant="variant", groups=fewer, metrics=["y"])) == ["all"]
    for bad, message in (
        ({"learned": "bandit"}, "no two that are"),
        ({"x": "y"}, "Known: learned"),
    ):
        with pytest.raises(AttributionError, match=message):
            value_of_learning(frame, variant="variant", groups=bad, metrics=["y"])
