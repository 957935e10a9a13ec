"""Logs read in batches give the numbers of logs in memory, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution import (
    AttributionError,
    EvaluationLog,
    EvaluationReport,
    LogColumns,
    evaluate,
    evaluate_batches,
)
from attribution.batches import Matrix

FloatArray = npt.NDArray[np.float64]
K = 4
ESTIMATORS = ["ips", "snips", "dm", "dr", "sndr", "cressie_read", "clipped_ips", "dros"]
TUNING = {"clipped_ips": 3.0, "dros": 10.0}
COLUMNS = LogColumns(
    "action", "reward", "p", actions="abcd", pmf="pmf", reward_range=(0, 1), max_weight=60.0
)
TARGETS: Mapping[str, Matrix] = {"near": "near", "far": [f"far_{a}" for a in "abcd"]}


def table(seed: int, n: int, units: int | None = None) -> pa.Table:
    """A log whose weights reach 40, with two targets and a reward model in its columns."""
    rng = np.random.default_rng(seed)
    pmf = 0.9 * rng.dirichlet(np.full(K, 0.6), size=n) + 0.1 / K
    action = (pmf.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    near = 0.5 * pmf + 0.5 * rng.dirichlet(np.full(K, 2.0), size=n)
    far = rng.dirichlet(np.full(K, 0.5), size=n)
    q_hat = rng.random((n, K))
    columns: dict[str, Any] = {
        "action": np.array(list("abcd"))[action],
        "reward": (rng.random(n) < 0.2 + 0.1 * action).astype(float),
        "p": pmf[np.arange(n), action],
        "pmf": list(pmf),
        "near": list(near),
        "near_drawn": near[np.arange(n), action],
        "q_hat": list(q_hat),
        "known": rng.random(n) < 0.9,
        "unit": [f"u{i}" for i in rng.integers(0, units or n, n)],
    }
    columns |= {f"far_{a}": far[:, i] for i, a in enumerate("abcd")}
    return pa.table(columns)


def in_memory(log: pa.Table, columns: LogColumns, **asked: Any) -> EvaluationReport:
    """`evaluate` of the whole log."""
    known = log.filter(log["known"]) if columns.observed else log

    def matrix(name: str, of: pa.Table) -> FloatArray:
        return np.array(of[name].to_pylist())

    frame = log.select(["action", "reward", "p", "known", "unit"]).to_pandas()
    read = EvaluationLog.from_frame(
        frame,
        action="action",
        reward="reward",
        propensity="p",
        actions=columns.actions,
        unit=columns.unit,
        pmf=None if columns.pmf is None else matrix("pmf", log),
        reward_range=columns.reward_range,
        max_weight=columns.max_weight,
        observed=columns.observed,
    )
    far = np.column_stack([known[f"far_{a}"].to_numpy() for a in "abcd"])
    targets = {"near": matrix("near", known), "far": far}
    return evaluate(read, targets, q_hat=matrix("q_hat", known), **asked)


def assert_alike(one: EvaluationReport, two: EvaluationReport, within: float = 1e-9) -> None:
    """The same numbers, and the same words."""
    for first, second in (
        (one.table(), two.table()),
        (one.comparisons(), two.comparisons()),
        (
            pd.DataFrame([each.to_json() for each in one.diagnostics.values()]),
            pd.DataFrame([each.to_json() for each in two.diagnostics.values()]),
        ),
    ):
        pd.testing.assert_frame_equal(first, second, rtol=within, atol=within, check_dtype=False)
    assert list(one.diagnostics) == list(two.diagnostics)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(30, 300),
    rows=st.sampled_from([1, 17, 90]),
    units=st.sampled_from([None, 15, 200]),
    observed=st.booleans(),
    ranged=st.booleans(),
    logged=st.booleans(),
    interval=st.sampled_from(["auto", "jackknife", "skew_corrected", "cressie_read"]),
    against=st.sampled_from([None, "logging", "near", "all"]),
)
@settings(max_examples=25, deadline=None)
def test_a_stream_tells_what_the_log_in_memory_does(
    seed: int,
    n: int,
    rows: int,
    units: int | None,
    observed: bool,
    ranged: bool,
    logged: bool,
    interval: Any,
    against: str | None,
) -> None:
    log = table(seed, n, units)
    columns = replace(
        COLUMNS,
        unit=None if units is None else "unit",
        observed="known" if observed else None,
        reward_range=(0, 1) if ranged or interval == "cressie_read" else None,
        pmf="pmf" if logged else None,
    )
    if not ranged and interval == "auto":
        estimators = [name for name in ESTIMATORS if name != "cressie_read"]
    else:
        estimators = ESTIMATORS if columns.reward_range else ESTIMATORS[:5]
    asked: dict[str, Any] = {
        "estimators": estimators, "against": against, "interval": interval, "tuning": TUNING,
    }  # fmt: skip
    streamed = evaluate_batches(
        lambda: log.to_batches(max_chunksize=rows),
        columns,
        TARGETS,
        q_hat="q_hat",
        parts=2 if units == 200 else 1,
        **asked,
    )
    assert_alike(streamed, in_memory(log, columns, **asked))


def test_the_streamed_bootstrap_draws_as_the_one_in_memory_does() -> None:
    """Its sums are of single precision, so that the seventh digit may differ."""
    log = table(1, 5000)
    asked: dict[str, Any] = {
        "estimators": ["ips", "snips", "sndr"],
        "interval": "bootstrap",
        "against": "all",
        "seed": 7,
    }
    streamed = evaluate_batches(log, COLUMNS, TARGETS, q_hat="q_hat", **asked)
    assert_alike(streamed, in_memory(log, COLUMNS, **asked), within=1e-6)


def test_a_column_of_the_logged_actions_probability_is_target_enough() -> None:
    log = table(2, 3000)
    whole, column = (
        evaluate_batches(log, COLUMNS, {"t": name}, ["ips", "snips"])
        for name in ("near", "near_drawn")
    )
    pd.testing.assert_frame_equal(whole.table(), column.table())


def test_a_folder_of_files_is_read_whole_and_a_function_makes_what_no_column_holds(
    tmp_path: Path,
) -> None:
    log = table(3, 2000)
    for start in (0, 1500):
        pq.write_table(log.slice(start, 1500), tmp_path / f"{start}.parquet", row_group_size=300)

    def near(batch: pa.RecordBatch) -> FloatArray:
        return np.array(batch["near"].to_pylist())

    asked: dict[str, Any] = {"estimators": ["ips", "dr"], "q_hat": "q_hat", "against": "logging"}
    one = evaluate_batches(tmp_path, COLUMNS, {"near": near}, **asked)
    two = evaluate_batches(log, COLUMNS, {"near": "near"}, **asked)
    assert one.results[0].n == 2000
    assert_alike(one, two)


def test_memory_does_not_grow_with_the_rows() -> None:
    """Eight times the rows, in batches that are made as they are asked for."""
    peaks = []
    for count in (6, 48):
        batch = table(4, 4000).combine_chunks().to_batches()[0]

        def batches(count: int = count, batch: pa.RecordBatch = batch) -> Iterator[pa.RecordBatch]:
            return (batch for _ in range(count))

        tracemalloc.start()
        report = evaluate_batches(
            batches, COLUMNS, TARGETS, ["ips", "snips", "dr"], q_hat="q_hat", against="all"
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.results[0].n == 4000 * count
    assert peaks[1] < 1.1 * peaks[0]


def broken(name: str, row: int, value: Any) -> pa.Table:
    """A log with one value that is not valid, in the second batch of a hundred rows."""
    frame = table(5, 300).to_pandas()
    frame.at[row, name] = value
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("p", 0.0, r"`propensity` is not in \(0, 1\] in 1 of 100 rows, first in row 50 \(it is 0"),
        ("p", np.nan, r"`propensity` is not in \(0, 1\]"),
        ("reward", np.inf, "`reward` is not a finite number"),
        ("action", "z", "`action` is not one of `actions`"),
        ("near", [0.5, 0.5, 0.5, 0.0], "`targets.near` does not sum to one"),
        ("near", [0.5, 0.5], "`targets.near` is no list of 4 in 1 of 100 rows"),
        ("q_hat", [0.5, np.nan, 0.5, 0.5], "`q_hat` is not finite"),
        ("unit", None, "`unit` is missing"),
    ],
)
def test_a_row_that_is_not_valid_is_named_by_its_place_in_the_log(
    name: str, value: Any, told: str
) -> None:
    log = broken(name, 150, value)
    with pytest.raises(AttributionError, match=told) as raised:
        evaluate_batches(
            lambda: log.to_batches(max_chunksize=100),
            replace(COLUMNS, unit="unit", pmf=None),
            TARGETS,
            q_hat="q_hat",
        )
    assert (raised.value.count, raised.value.row) == (1, 150)
    assert "counted from row 100, where their batch begins" in str(raised.value)


def test_a_row_behind_others_without_an_outcome_is_told_by_its_place_in_the_log() -> None:
    log = broken("p", 150, 7.0)
    columns = replace(COLUMNS, observed="known", pmf=None)
    known = np.arange(300) % 10 != 5
    log = log.set_column(log.schema.get_field_index("known"), "known", pa.array(known))
    with pytest.raises(AttributionError) as raised:
        evaluate_batches(lambda: log.to_batches(max_chunksize=100), columns, {"t": "near"}, ["ips"])
    assert raised.value.row == 150


def test_a_row_without_an_outcome_whose_action_is_unknown_is_told_by_its_place() -> None:
    log = broken("action", 150, "z")
    known = pa.array(np.arange(300) % 150 != 0)
    log = log.set_column(log.schema.get_field_index("known"), "known", known)
    columns = replace(COLUMNS, observed="known", pmf=None)
    with pytest.raises(AttributionError, match="`action` is not one of `actions`") as raised:
        evaluate_batches(lambda: log.to_batches(max_chunksize=120), columns, {"t": "near"}, ["ips"])
    assert (raised.value.count, raised.value.row) == (1, 150)


def test_a_row_of_one_of_several_parts_is_not_given_a_place_that_it_does_not_have() -> None:
    with pytest.raises(AttributionError, match="counted among the rows of one of 3 parts") as told:
        evaluate_batches(
            broken("p", 150, 7.0),
            replace(COLUMNS, unit="unit", pmf=None),
            {"t": "near"},
            ["ips"],
            parts=3,
        )
    assert (told.value.count, told.value.row) == (1, None)


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "log.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AttributionError, match=r"log\.parquet', which cannot be read as Parquet"):
        evaluate_batches(path, COLUMNS, TARGETS, ["ips"])


@pytest.mark.parametrize(
    ("change", "asked", "told"),
    [
        ({}, {"estimators": ["ips", "ips"]}, "`estimators` names 'ips' twice"),
        ({}, {"estimators": ["aw_aipw"]}, "`estimators` names 'aw_aipw'. Known: ips, snips"),
        ({}, {"estimators": ["dr"], "q_hat": None}, "models are not fitted on a stream"),
        ({}, {"interval": "anytime"}, "`interval` is 'anytime'. Known: auto, jackknife"),
        ({}, {"estimators": ["dros"]}, "`tuning.dros` is None. Give one number"),
        ({}, {"estimators": ["dros"], "tuning": {"dros": [1, 2]}}, "Give one number"),
        ({}, {"parts": 0}, "`parts` is 0"),
        ({}, {"targets": {"t": "gone"}}, "'gone' is not a column"),
        ({}, {"targets": {"t": ["near"]}}, "`targets.t` names 1 columns for 4 actions"),
        ({}, {"source": 3}, "`source` is a int"),
        ({"observed": "p"}, {}, "`observed` is column 'p' of type double"),
        ({"pmf": "p"}, {}, "`pmf` is a column of type double. It must hold a list of 4"),
        ({"pmf": list("pppp"), "reward": "action"}, {}, "`reward` is column 'action'"),
        ({"pmf": ["p", "p", "p", "action"]}, {}, "`pmf` holds large_string|`pmf` holds string"),
        ({"reward_range": None}, {"interval": "cressie_read"}, "declares no `reward_range`"),
    ],
)
def test_what_a_stream_cannot_give_is_refused(
    change: dict[str, Any], asked: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"source": table(6, 50), "targets": TARGETS, "q_hat": "q_hat"} | asked
    with pytest.raises(AttributionError, match=told):
        evaluate_batches(columns=replace(COLUMNS, **change), **given)


@pytest.mark.parametrize("make", [lambda t: t.slice(0, 1), lambda t: t.slice(0, 0)])
def test_fewer_than_two_units_are_refused(make: Callable[[pa.Table], pa.Table]) -> None:
    with pytest.raises(AttributionError, match="units with an outcome, from which no spread"):
        evaluate_batches(make(table(7, 10)), COLUMNS, TARGETS, ["ips"])
