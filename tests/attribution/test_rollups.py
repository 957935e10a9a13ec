"""Roll-ups: the same report from rows, from Parquet by DuckDB, and from merged moments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution import (
    AttributionError,
    Count,
    Mean,
    Proportion,
    Quantile,
    Ratio,
    Retention,
    Rollup,
    lift,
    roll_up,
)
from attribution.lift_metrics import Metric
from attribution.moments import Moments

METRICS: list[Metric] = [
    Mean("revenue", cap=40.0, better="up"),
    Mean("revenue", "adjusted", covariates=("before", "visits")),
    Proportion("bought"),
    Count("orders"),
    Ratio("revenue", per="orders"),
    Retention("week_2"),
]


def units(n: int = 3_000, seed: int = 0, centre: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    new = rng.random(n) < 0.3
    before = rng.normal(size=n)
    orders = rng.poisson(1.5, n)
    frame = pd.DataFrame(
        {
            "unit": [f"u:{i}" for i in range(n)],
            "variant": np.where(new, "new", "control"),
            "probability": np.where(new, 0.3, 0.7),
            "day": rng.integers(0, 5, n),
            "country": rng.choice(["de", "fr"], n),
            "before": before,
            "visits": rng.poisson(3, n),
            "orders": orders,
            "bought": orders > 0,
            "revenue": centre + orders * np.exp(rng.normal(size=n)) + before + 0.2 * new,
            "week_2": rng.poisson(0.4, n),
            "seen": rng.random(n) < 0.6,
        }
    )
    # Not matured yet.
    frame.loc[rng.random(n) < 0.1, "revenue"] = np.nan
    return frame


ASKED: dict[str, Any] = {"variant": "variant", "probability": "probability", "metrics": METRICS}


def same(a: pd.DataFrame, b: pd.DataFrame, rel: float) -> None:
    assert list(a.columns) == list(b.columns)
    for name in a.columns:
        if a[name].dtype == float:
            np.testing.assert_allclose(a[name], b[name], rtol=rel, atol=rel)
        elif name != "advice":
            assert a[name].tolist() == b[name].tolist(), name


@pytest.mark.parametrize("horizon", ["always", "fixed"])
def test_parquet_gives_the_report_of_the_frame(tmp_path: Path, horizon: str) -> None:
    frame = units()
    frame.to_parquet(tmp_path / "units.parquet")
    more = {
        "baseline": "control",
        "segments": "country",
        "exposed": "seen",
        "horizon": horizon,
        "unit": "unit",
        "metrics": [*METRICS, Quantile("revenue", quantile=0.9)],
    }
    in_memory = lift(frame, **(ASKED | more))
    on_disk = lift(tmp_path / "units.parquet", **(ASKED | more))
    assert on_disk.srm.p_value == pytest.approx(in_memory.srm.p_value, rel=1e-12)
    same(in_memory.table(), on_disk.table(), 1e-9)
    same(in_memory.segment_table(), on_disk.segment_table(), 1e-9)
    assert on_disk.guardrails == in_memory.guardrails


def test_nan_in_parquet_is_missing_as_null_is(tmp_path: Path) -> None:
    frame = units().fillna({"revenue": 1.0})
    table = pa.Table.from_pandas(frame)
    at = table.schema.get_field_index("revenue")
    holed = np.where(np.arange(len(frame)) % 7 == 0, np.nan, frame["revenue"])
    for number, column in enumerate((pa.array(holed), pa.array(holed, from_pandas=True))):
        pq.write_table(table.set_column(at, "revenue", column), tmp_path / f"{number}.parquet")
    nan, null = (
        lift(tmp_path / f"{number}.parquet", baseline="control", **ASKED).table()
        for number in range(2)
    )
    same(nan, null, 1e-9)


def test_several_files_are_one_log(tmp_path: Path) -> None:
    frame = units()
    for part in range(3):
        frame.iloc[part::3].to_parquet(tmp_path / f"{part}.parquet")
    whole, parts = (
        lift(source, baseline="control", **ASKED).table()
        for source in (frame, tmp_path / "*.parquet")
    )
    same(whole, parts, 1e-9)


@pytest.mark.parametrize("form", ["frame", "parquet"])
def test_a_mean_of_1e8_keeps_the_variance(tmp_path: Path, form: str) -> None:
    """To 1e-6 of the variance of the same values near zero; raw sums of squares lose it."""
    near, far = units(), units(centre=1e8)
    metric = [Mean("revenue")]
    asked = ASKED | {"metrics": metric, "baseline": "control", "horizon": "fixed"}
    source: Any = far
    if form == "parquet":
        source = tmp_path / "far.parquet"
        far.to_parquet(source)
    [expected], [found] = lift(near, **asked).results, lift(source, **asked).results
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=1e-6)
    assert found.difference == pytest.approx(expected.difference, abs=1e-6)


def test_a_shift_from_the_first_rows_that_lies_far_off_is_taken_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    y = np.concatenate([np.zeros(10_000), 1e8 + rng.normal(size=200_000)])
    frame = pd.DataFrame({"variant": np.where(np.arange(len(y)) % 2, "a", "b"), "y": y})
    frame.to_parquet(tmp_path / "far.parquet", row_group_size=5_000)
    rollups = [
        roll_up(source, variant="variant", metrics=["y"], by=[])
        for source in (frame, tmp_path / "far.parquet")
    ]
    first, second = (each.moments["y"] for each in rollups)
    np.testing.assert_allclose(first.mean, second.mean, rtol=1e-12)
    np.testing.assert_allclose(first.m2, second.m2, rtol=1e-9)


def test_daily_roll_ups_stored_and_merged_give_the_report_of_the_rows(tmp_path: Path) -> None:
    frame = units()
    days = [roll_up(part, by=["day"], **ASKED) for _, part in frame.groupby("day", sort=True)]
    for number, day in enumerate(days):
        day.to_frame().to_parquet(tmp_path / f"{number}.parquet")
    stored = [Rollup.from_frame(tmp_path / f"{number}.parquet", METRICS) for number in range(5)]
    whole = stored[0]
    for day in stored[1:]:
        whole = whole + day
    asked: dict[str, Any] = ASKED | {"baseline": "control", "probability": None}
    same(lift(frame, baseline="control", **ASKED).table(), lift(whole, **asked).table(), 1e-9)
    first = whole.only(whole.keys["day"] < 2)
    rows = frame[frame["day"] < 2]
    same(lift(rows, baseline="control", **ASKED).table(), lift(first, **asked).table(), 1e-9)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 2)), max_size=40),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 2)), max_size=40),
    st.sampled_from([0.0, 1e8, -1e8]),
)
@settings(max_examples=100, deadline=None)
def test_moments_of_halves_merge_to_those_of_the_whole(
    first: list[tuple[float, int]], second: list[tuple[float, int]], shift: float
) -> None:
    def of(rows: list[tuple[float, int]]) -> Moments:
        values = np.array([[value + shift, value / 7] for value, _ in rows]).reshape(-1, 2)
        return Moments.of(values, np.array([cell for _, cell in rows], np.intp), 3, resting=shift)

    merged, whole = of(first) + of(second), of(first + second)
    assert merged.n.tolist() == whole.n.tolist()
    assert merged.away.tolist() == whole.away.tolist()
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-7)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-9, atol=2e-2)


def test_moments_are_those_of_numpy() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + 5
    found = Moments.of(values)
    np.testing.assert_allclose(found.mean[0], values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.m2[0] / 49, np.cov(values.T), rtol=1e-10)


BAD: list[tuple[dict[str, Any], list[Metric], str]] = [
    ({"revenue": np.inf}, [Mean("revenue")], "`revenue` is infinite in 3,000 of 3,000 rows, first"),
    ({"bought": 2}, [Proportion("bought")], "`bought` is neither 0 nor 1 in 3,000 of 3,000 rows"),
    ({"orders": -1}, [Count("orders")], "`orders` is no count in 3,000 of 3,000 rows"),
    ({"probability": 0.0}, [Count("orders")], r"`probability` is not in \(0, 1\] in 3,000"),
    ({"probability": np.nan}, [Count("orders")], r"`probability` is not in \(0, 1\] in 3,000"),
    ({"probability": 1e-200}, [Count("orders")], "`probability` is below 1e-09 in 3,000 of"),
    ({"variant": None}, [Count("orders")], "`variant` is missing in 3,000 of 3,000 rows"),
    ({"unit": "u:1"}, [Count("orders")], "`unit` (repeats|has more)"),
    ({"day": None}, [Count("orders")], "`day` is missing in 3,000 of 3,000 rows"),
    ({"before": np.nan}, [Mean("revenue", covariates=("before",))], "`before` is missing where"),
    ({"orders": "many"}, [Count("orders")], "`metrics` is column 'orders'"),
    ({}, [Count("nothing")], "`metrics` is 'nothing', which is not a column"),
]  # fmt: skip


@pytest.mark.parametrize("form", ["frame", "parquet"])
@pytest.mark.parametrize(("change", "metrics", "message"), BAD)
def test_bad_rows_are_refused_alike(
    tmp_path: Path, change: dict[str, Any], metrics: list[Metric], message: str, form: str
) -> None:
    frame = units().assign(**change)
    source: Any = frame
    if form == "parquet":
        source = tmp_path / "bad.parquet"
        frame.to_parquet(source)
    with pytest.raises(AttributionError, match=message) as raised:
        roll_up(source, by=["day"], unit="unit", **(ASKED | {"metrics": metrics}))
    if "rows" in message:
        assert (raised.value.count, raised.value.row) == (3_000, 0)


def test_the_first_bad_row_of_a_file_is_named(tmp_path: Path) -> None:
    frame = units().fillna({"revenue": 0.0})
    frame.loc[[17, 40], "revenue"] = -np.inf
    frame.to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(AttributionError, match="in 2 of 3,000 rows, first in row 17"):
        roll_up(tmp_path / "bad.parquet", **ASKED)


def test_a_path_of_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttributionError, match="`units` is"):
        roll_up(tmp_path / "none.parquet", **ASKED)


def test_what_a_roll_up_does_not_hold_is_refused() -> None:
    rollup = roll_up(units(), **ASKED)
    asked: dict[str, Any] = {"variant": "variant", "baseline": "control"}
    with pytest.raises(AttributionError, match="needs the rows"):
        lift(rollup, metrics=[Quantile("revenue")], **asked)
    with pytest.raises(AttributionError, match=r"the roll-up does not hold\. It holds: revenue"):
        lift(rollup, metrics=["clicks"], **asked)
    with pytest.raises(AttributionError, match="`country` is no key"):
        lift(rollup, metrics=METRICS, segments="country", **asked)
    with pytest.raises(AttributionError, match="differ in metrics or keys"):
        rollup + roll_up(units(), by=["day"], **ASKED)
    with pytest.raises(AttributionError, match="stored roll-up does not hold"):
        Rollup.from_frame(rollup.to_frame(), [Mean("clicks")])
    with pytest.raises(AttributionError, match="`cells` has shape"):
        rollup.only([True])


def test_a_declared_variant_that_nobody_got_stands_in_the_roll_up(tmp_path: Path) -> None:
    frame = units()
    frame.to_parquet(tmp_path / "units.parquet")
    shares = {"control": 0.7, "new": 0.2, "lost": 0.1}
    for source in (frame, tmp_path / "units.parquet"):
        rollup = roll_up(source, **(ASKED | {"probability": shares}))
        assert rollup.keys["variant"].tolist() == ["control", "new", "lost"]
        assert rollup.assigned[2] == 0
