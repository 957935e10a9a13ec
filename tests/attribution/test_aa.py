"""A/A checks count false alarms, and find where the promise breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from attribution import AttributionError, Mean, Quantile, aa_check
from attribution.anytime import NormalMixture


def revenue(n: int = 20_000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    y = (rng.random(n) < 0.1) * rng.lognormal(0, 1, n)
    return pd.DataFrame({"y": y, "bought": y > 0, "at": rng.permutation(n)})


def test_sound_metrics_keep_their_promise_on_ones_own_units() -> None:
    checks = aa_check(revenue(), metrics=["y", "bought"], seed=1, splits=60, order="at")
    assert [check.metric for check in checks] == ["y", "bought"]
    assert [check.verdict for check in checks] == ["ok", "ok"]


def test_the_same_seed_gives_the_same_check() -> None:
    asked: dict[str, Any] = {"metrics": ["y"], "splits": 20, "horizon": "fixed"}
    frame = revenue(2_000)
    assert aa_check(frame, seed=3, **asked) == aa_check(frame, seed=3, **asked)


def test_an_interval_that_is_no_sequence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at 20 times, a bound of 1.96 standard errors alarms in about a quarter."""

    def p_value(self: object, z_squared: float, clock: float, df: int = 1) -> float:
        return 0.0 if z_squared > 1.96**2 else 1.0

    monkeypatch.setattr(NormalMixture, "p_value", p_value)
    [check] = aa_check(revenue(), metrics=["bought"], seed=4, splits=60)
    assert check.alarms > 8
    assert check.verdict == "too many false alarms"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"share": 1.0}, "`share` is 1.0"),
        ({"splits": 0}, "`splits` is 0"),
        ({"looks": 0}, "`looks` is 0"),
        ({"alpha": 0.0}, "`alpha` is 0.0"),
        ({"order": "when"}, "`order` is 'when'"),
        ({"metrics": [Quantile("y")]}, "have no A/A check"),
        ({"metrics": [Mean("z")]}, "'z', which is not a column"),
    ],
)
def test_a_check_that_cannot_be_made_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(AttributionError, match=message):
        aa_check(revenue(100), **{"metrics": ["y"], "seed": 1, **asked})
