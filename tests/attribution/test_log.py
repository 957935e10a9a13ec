"""The evaluation log: every kind of frame, and every kind of bad input, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from attribution import AttributionError, EvaluationLog, evaluate

FRAME = pd.DataFrame(
    {
        "id": [f"d{i}" for i in range(6)],
        "unit": ["u", "u", "v", "v", "w", "w"],
        "action": ["a", "b", "c", "a", "b", "c"],
        "reward": [0.0, 1.0, 0.5, 0.0, 1.0, 1.0],
        "p": [0.2, 0.3, 0.5, 0.2, 0.3, 0.5],
        "at": pd.date_range("2026-01-01", periods=6, freq="h", tz="UTC"),
    }
)
PMF = np.tile([0.2, 0.3, 0.5], (6, 1))


def read(frame: Any = FRAME, **arguments: Any) -> EvaluationLog:
    names = {"action": "action", "reward": "reward", "propensity": "p"}
    return EvaluationLog.from_frame(frame, **(names | arguments))


def test_pandas_polars_arrow_and_parquet_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    FRAME.to_parquet(path)
    frames = [FRAME, pl.from_pandas(FRAME), pa.Table.from_pandas(FRAME), path, str(path)]
    reports = []
    for frame in frames:
        log = read(frame, unit="unit", time="at", logger="action", decision_id="id")
        assert (log.n, log.k, log.n_units, log.actions) == (6, 3, 3, ("a", "b", "c"))
        reports.append(evaluate(log, {"u": log.uniform()}).to_json())
    assert all(report == reports[0] for report in reports)


def test_actions_that_were_never_drawn_are_there_when_named() -> None:
    log = read(actions=["c", "b", "a", "never"])
    assert log.k == 4
    assert log.action.tolist() == [2, 1, 0, 2, 1, 0]


def test_the_uniform_target_keeps_to_the_eligible_actions() -> None:
    eligible = np.ones((6, 3), dtype=bool)
    eligible[0, 2] = False
    log = read(eligible=eligible)
    assert log.uniform()[0].tolist() == [0.5, 0.5, 0]
    assert log.always("a")[:, 0].tolist() == [1.0] * 6
    with pytest.raises(AttributionError, match="`c` is not eligible in 1 of 6 rows"):
        log.always("c")
    with pytest.raises(AttributionError, match=r"'z', which the log does not know\. Known: a, b"):
        log.always("z")


def test_a_boolean_reward_declares_its_range_and_numbers_do_not() -> None:
    assert read(FRAME.assign(reward=FRAME["reward"] > 0)).reward_range == (0, 1)
    assert read().reward_range is None


def column(name: str, value: object, row: int = 2) -> pd.DataFrame:
    values = FRAME[name].astype(object).tolist()
    values[row] = value
    return FRAME.assign(**{name: pd.Series(values)})


BAD: list[tuple[pd.DataFrame, dict[str, Any], str]] = [
    (column("p", 0.0), {}, r"`propensity` is not in \(0, 1\] in 1 of 6 rows, first in row 2 \(it"),
    (column("p", -0.1), {}, r"`propensity` is not in \(0, 1\]"),
    (column("p", 1.01), {}, r"first in row 2 \(it is 1.01\)"),
    (column("p", np.nan), {}, r"first in row 2 \(it is nan\)"),
    (column("p", "n/a"), {}, r"column 'p', which holds no number in 1 of 6 rows, first in row 2"),
    (column("id", None), {"decision_id": "id"}, "`id` is missing in 1 of 6 rows, first in row 2"),
    (FRAME.assign(p=0.5), {"pmf": PMF}, "not the logged action's entry of `pmf` in 4 of 6 rows"),
    (FRAME, {"pmf": PMF * 0.9}, r"`pmf` does not sum to one in 6 of 6 rows, first in row 0 \(it"),
    (FRAME, {"pmf": PMF[:5]}, r"`pmf` has shape \(5, 3\). It must be \(6, 3\)"),
    (column("reward", np.nan), {}, "`reward` is not a finite number in 1 of 6 .* is not a zero"),
    (column("reward", np.inf), {}, "`reward` is not a finite number in 1 of 6 rows"),
    (FRAME.assign(reward="1"), {}, "`reward` is column 'reward' of type"),
    (column("action", None), {}, "`action` is missing in 1 of 6 rows, first in row 2"),
    (FRAME, {"actions": ["a", "b"]}, r"`action` is not one of `actions` in 2 of 6 .* \(it is c\)"),
    (FRAME, {"actions": ["a", "b", "c", "a"]}, "`actions` names an action twice"),
    (
        column("id", "d0"),
        {"decision_id": "id"},
        r"`id` repeats an earlier row's in 1 .* \(it is d0",
    ),
    (column("unit", None), {"unit": "unit"}, "`unit` is missing in 1 of 6 rows"),
    (FRAME.assign(unit="u"), {"unit": "unit"}, "`unit` holds a single unit"),
    (FRAME.iloc[:0], {}, "the log holds no rows"),
    (FRAME, {"unit": "person"}, "`unit` is 'person', which is not a column. Columns: id, unit"),
    (FRAME, {"context": ["age"]}, "`context` is 'age', which is not a column"),
    (FRAME, {"time": "p"}, "`time` is column 'p' of type float64"),
    (FRAME, {"eligible": np.ones((6, 2))}, r"`eligible` has shape \(6, 2\)"),
    (FRAME, {"eligible": PMF < 0.4}, "`eligible` excludes the action that was drawn in 2 of 6"),
    (FRAME, {"reward_range": (0, 0.7)}, r"outside `reward_range` \(0, 0.7\) in 3 of 6 rows"),
    (FRAME, {"reward_range": (1, 0)}, r"`reward_range` is \(1, 0\)"),
    (FRAME, {"max_weight": 0.5}, "`max_weight` is 0.5. It must exceed 1"),
]


@pytest.mark.parametrize(("frame", "arguments", "message"), BAD)
def test_a_log_that_is_not_valid_is_refused_by_name(
    frame: pd.DataFrame, arguments: dict[str, Any], message: str
) -> None:
    frame = frame.infer_objects()
    with pytest.raises(AttributionError, match=message):
        read(frame, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pmf": [[1.0], [0.5, 0.5]]}, "`pmf` must be an array of numbers"),
        ({"pmf": PMF.astype(str).astype(object) + "x"}, "`pmf` must be an array of numbers"),
        ({"logger_propensity": "p"}, "`logger_propensity` must be an array of numbers"),
        ({"eligible": np.where(PMF > 0.4, np.nan, 1)}, "other than true and false in 6 of 6 rows"),
        ({"eligible": np.full((6, 3), 0.5)}, "`eligible` holds other than true and false"),
        ({"reward_range": (0, 1, 2)}, r"`reward_range` is \(0, 1, 2\)"),
        ({"reward_range": 1}, "`reward_range` is 1. It must be two finite numbers"),
        ({"reward_range": ("a", "b")}, "`reward_range` must be an array of numbers"),
        ({"pmf": PMF[:5], "observed": "known"}, r"`pmf` has shape \(5, 3\) and the frame 6 rows"),
    ],
)
def test_a_matrix_or_a_range_that_is_none_is_refused_by_name(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AttributionError, match=message):
        read(FRAME.assign(known=[True] * 5 + [False]), **arguments)


def test_an_eligible_set_of_zeros_and_ones_is_one_of_truths() -> None:
    whole = np.ones((6, 3))
    whole[0, 2] = 0
    assert read(eligible=whole.tolist()).uniform()[0].tolist() == [0.5, 0.5, 0]


def test_a_target_or_a_model_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(AttributionError, match=r"`targets\.t` must be an array of numbers"):
        evaluate(read(), {"t": [[1.0], [0.5, 0.5]]})
    with pytest.raises(AttributionError, match="`q_hat` must be an array of numbers"):
        evaluate(read(), {"t": PMF}, ["dr"], q_hat="no column")


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "log.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AttributionError, match=r"log\.parquet` cannot be read as Parquet"):
        read(path)


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(AttributionError, match="`reward` is 'reward', and 2 columns are called so"):
        read(pd.concat([FRAME, FRAME[["reward"]]], axis=1))


def test_unit_codes_with_a_gap_are_refused() -> None:
    for unit in ([0, 2], [-1, 0]):
        with pytest.raises(AttributionError, match="`unit` skips a code"):
            EvaluationLog(("a",), np.zeros(2, int), np.ones(2), np.ones(2), unit=np.array(unit))


@pytest.mark.parametrize("field", ["action", "unit", "logger"])
def test_codes_that_are_not_whole_numbers_are_refused(field: str) -> None:
    codes: dict[str, Any] = {
        "action": np.zeros(2, int),
        "unit": np.arange(2),
        "logger": np.arange(2),
    }
    for wrong in (codes[field].astype(float), codes[field].astype(bool), codes[field].tolist()):
        with pytest.raises(AttributionError, match=f"`{field}` holds .*whole-number codes"):
            EvaluationLog(
                ("a",), reward=np.ones(2), propensity=np.ones(2), **codes | {field: wrong}
            )


def test_rewards_that_are_not_numbers_are_refused_and_whole_ones_become_floats() -> None:
    common: dict[str, Any] = {"actions": ("a",), "action": np.zeros(2, int)}
    with pytest.raises(AttributionError, match="`reward` must be an array of numbers"):
        EvaluationLog(**common, reward=np.array(["x", "y"]), propensity=np.ones(2))
    log = EvaluationLog(**common, reward=np.array([0, 1]), propensity=np.ones(2, int))
    assert {log.reward.dtype, log.propensity.dtype} == {np.dtype(np.float64)}


def test_actions_of_several_types_are_refused_unless_they_are_named() -> None:
    mixed = column("action", 7)
    with pytest.raises(AttributionError, match="`action` holds int, str, which have no common"):
        read(mixed)
    assert read(mixed, actions=["a", "b", "c", 7]).k == 4
    assert read(FRAME.assign(unit=["u", 1, "v", 1, 2, 2]), unit="unit").n_units == 4


def test_a_small_propensity_must_agree_with_the_pmf_in_proportion() -> None:
    pmf = np.tile([1e-6, 0.5, 0.5 - 1e-6], (6, 1))
    frame = FRAME.assign(action=list("abcabc"), p=pmf[0][[0, 1, 2, 0, 1, 2]])
    assert read(frame, pmf=pmf).k == 3
    frame.loc[0, "p"] = 2e-7
    with pytest.raises(AttributionError, match="not the logged action's entry of `pmf` in 1 of 6"):
        read(frame, pmf=pmf)


def test_an_error_over_rows_carries_their_count_and_the_first() -> None:
    with pytest.raises(AttributionError) as caught:
        read(FRAME.assign(p=[0.2, 0.3, 7.0, 0.2, 8.0, 0.5]))
    assert (caught.value.count, caught.value.row) == (2, 2)


def test_a_row_behind_others_without_an_outcome_is_told_by_its_place_in_the_frame() -> None:
    frame = FRAME.assign(p=[0.2, 0.3, 7.0, 0.2, 0.5, 0.5], known=[True, False] + 4 * [True])
    with pytest.raises(
        AttributionError, match=r"in 1 of 5 rows, first in row 1 .*row 2 of all"
    ) as caught:
        read(frame, observed="known")
    assert caught.value.row == 2


def test_something_that_is_no_frame_is_refused() -> None:
    with pytest.raises(AttributionError, match="`frame` is a list"):
        read([1, 2])


BAD_TARGETS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "`targets` is empty"),
    ({"logging": PMF}, {}, 'one called "logging"'),
    ({"t": PMF[:, :2]}, {}, r"`targets.t` has shape \(6, 2\). It must be \(6, 3\)"),
    ({"t": PMF * 2}, {}, r"`targets.t` does not sum to one in 6 of 6 rows, first in row 0"),
    ({"t": PMF * np.nan}, {}, r"`targets.t` does not sum to one in 6 of 6 rows"),
    ({"t": np.tile([1.5, -0.5, 0], (6, 1))}, {}, "`targets.t` is negative in 6 of 6 rows"),
    ({"t": "nowhere"}, {"estimators": ["ips"]}, "`targets.t` is 'nowhere', which is not a column"),
    ({"t": "q"}, {"estimators": ["ips"]}, r"`targets.t` is not in \[0, 1\] in 6 of 6 rows"),
    ({"t": PMF}, {"estimators": ["ols"]}, "`estimators` names 'ols'. Known: ips, snips, dm, dr"),
    ({"t": PMF}, {"estimators": []}, "`estimators` is empty"),
    ({"t": PMF}, {"against": "x"}, "`against` is 'x'"),
    ({"t": PMF}, {"interval": "wald"}, "`interval` is 'wald'. Known: auto, jackknife"),
    ({"t": PMF}, {"interval": "cressie_read"}, "declares no `reward_range`"),
    ({"t": PMF}, {"alpha": 0.0}, "`alpha` is 0.0"),
    ({"t": PMF}, {"q_hat": PMF[:3]}, r"`q_hat` has shape \(3, 3\)"),
    ({"t": PMF}, {"q_hat": PMF * np.inf}, "`q_hat` is not finite in 6 of 6 rows"),
]


@pytest.mark.parametrize(("targets", "arguments", "message"), BAD_TARGETS)
def test_a_target_or_argument_that_is_not_valid_is_refused_by_name(
    targets: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    log = read(FRAME.assign(q=1.5))
    with pytest.raises(AttributionError, match=message):
        evaluate(log, targets, **arguments)


def test_a_target_outside_the_eligible_set_or_the_largest_weight_is_refused() -> None:
    eligible = np.ones((6, 3), dtype=bool)
    eligible[0, 2] = False
    with pytest.raises(AttributionError, match="not eligible in 1 of 6 rows, first in row 0"):
        evaluate(read(eligible=eligible), {"t": PMF})
    log = read(max_weight=2)
    with pytest.raises(AttributionError, match=r"above `max_weight` \(2\) in 2 of 6 rows"):
        evaluate(log, {"t": log.always("a")})


def test_a_column_as_target_needs_a_log_that_was_read_from_a_frame() -> None:
    log = EvaluationLog(("a", "b"), np.array([0, 1]), np.ones(2), np.full(2, 0.5))
    with pytest.raises(AttributionError, match="not read from a frame"):
        evaluate(log, {"t": "column"}, ["ips"])
