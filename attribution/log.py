"""The evaluation log: logged choices with their propensities and rewards, valid once it exists."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.errors import AttributionError, refuse_rows
from attribution.intervals import blocks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

_OF_ROWS = (
    "reward", "propensity", "unit", "time", "logger", "context", "logger_propensity", "embedding",
)  # fmt: skip
# A pmf that was stored as float32 sums to one within a few 1e-7.
PMF_TOLERANCE = 1e-6
# Columns of a matrix that count as one where its rows are cut into blocks.
_CHECKED = 2


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationLog:
    """n logged choices among k actions.

    One row is one randomisation: a sticky draw is one row, its reward summed over the period.

    Parameters
    ----------
    actions
        All k actions that could be drawn, drawn or not.
    action
        (n,) index into ``actions`` of what was drawn.
    reward
        (n,) finite.
    propensity
        (n,) in (0, 1]: the probability with which ``action`` was drawn.
    unit
        (n,) codes 0…m−1 of the randomisation unit, or None where each row is a unit. Rows of one
        unit are treated as dependent.
    eligible
        (n, k) mask of the actions that could be drawn in each row; None: all of them.
    pmf
        (n, k) logged probabilities of all actions. With it the propensities can be checked
        against what was drawn.
    context
        One row for each choice: what the policy saw. Reward models read it.
    time
        (n,) when the choice was made, datetime64.
    logger
        (n,) codes of the policy snapshot that drew. With ``time`` it may tell an adaptive log.
    adaptive
        Whether the logging policy learned from this log's outcomes while it logged; None where
        that is not known, and then ``logger`` and ``time`` are asked.
    reward_range
        The smallest and largest reward that are possible, known beforehand and never read off
        the sample. Cressie–Read intervals need it.
    max_weight
        The largest π(a|x)/p(a|x) that any target could meet, known beforehand (one over the
        exploration floor of the least likely action). The closer it is, the narrower Cressie–Read
        intervals are.
    max_rows
        The largest number of rows that one unit can have, known beforehand. Bernstein and anytime
        intervals need it where units have unequal numbers.
    logger_propensity
        (n, l) the probability with which each of l loggers, in the order of their codes, would
        have drawn the row's action. The balanced mixture of loggers needs it.
    embedding
        (n,) codes of the logged action's embedding (its category, its cluster). MIPS reads it.
    missing
        (k,) how many further rows of each action have matured without an outcome: they are in no
        estimate, but must not depend on the action.
    columns
        The frame from which the log was read: a target may name one of its columns.
    """

    # No spread can be told of fewer.
    LEAST_UNITS: ClassVar[int] = 2

    actions: tuple[Hashable, ...]
    action: IntArray
    reward: FloatArray
    propensity: FloatArray
    unit: IntArray | None = None
    eligible: BoolArray | None = None
    pmf: FloatArray | None = None
    context: pd.DataFrame | None = None
    time: npt.NDArray[np.datetime64] | None = None
    logger: IntArray | None = None
    adaptive: bool | None = None
    reward_range: tuple[float, float] | None = None
    max_weight: float = math.inf
    max_rows: int | None = None
    logger_propensity: FloatArray | None = None
    embedding: IntArray | None = None
    missing: IntArray | None = None
    columns: pd.DataFrame | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n, k = len(self.action), len(self.actions)
        self._check_types()
        if n == 0:
            raise AttributionError("the log holds no rows. Give it at least two units.")
        if len(set(self.actions)) < k:
            raise AttributionError("`actions` names an action twice. Each must be there once.")
        for name in _OF_ROWS:
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise AttributionError(
                    f"`{name}` has {len(value):,} rows and `action` {n:,}. They must agree."
                )
        refuse_rows(
            (self.action < 0) | (self.action >= k),
            "action",
            "is not one of `actions`",
            "Add it to `actions`, which lists all that could be drawn.",
            self.action,
        )
        refuse_rows(
            ~np.isfinite(self.reward),
            "reward",
            "is not a finite number",
            "Leave out rows whose outcome is not known yet; a missing reward is not a zero.",
            self.reward,
        )
        # The comparison is written so that NaN fails it.
        refuse_rows(
            ~((self.propensity > 0) & (self.propensity <= 1)),
            "propensity",
            "is not in (0, 1]",
            "Log the probability with which the action was drawn.",
            self.propensity,
        )
        if self.unit is not None and (self.unit.min() < 0 or not np.bincount(self.unit).all()):
            raise AttributionError(
                "`unit` skips a code. Codes must be 0…m−1, as pandas.factorize gives them."
            )
        self._check_range()
        self._check_loggers()
        if self.eligible is not None:
            self._check_eligible()
        if self.pmf is not None:
            self._check_pmf(self.pmf)
        if self.n_units < self.LEAST_UNITS:
            raise AttributionError(
                "`unit` holds a single unit, from which no spread can be told. "
                "Evaluate at least two."
            )

    def _check_types(self) -> None:
        """Codes must be whole numbers; rewards and propensities become float64."""
        for name in ("action", "unit", "logger", "embedding", "missing"):
            codes = getattr(self, name)
            if codes is not None and not _is_codes(codes):
                raise AttributionError(
                    f"`{name}` holds {getattr(codes, 'dtype', type(codes).__name__)}. It must be "
                    "an array of whole-number codes, as pandas.factorize gives them."
                )
        for name in ("reward", "propensity", "pmf", "logger_propensity"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_numbers(name, given))
        if self.eligible is not None:
            object.__setattr__(self, "eligible", _as_mask(self.eligible))

    def _check_loggers(self) -> None:
        """Codes are not negative, the loggers' own probability is that which was logged."""
        for name in ("logger", "embedding", "missing"):
            codes = getattr(self, name)
            if codes is not None and len(codes) and codes.min() < 0:
                raise AttributionError(f"`{name}` holds {codes.min()}. Codes and counts are ≥ 0.")
        if self.missing is not None and len(self.missing) != self.k:
            raise AttributionError(
                f"`missing` has {len(self.missing)} counts for {self.k} actions. "
                "Give one for each of `actions`."
            )
        if self.logger_propensity is None:
            return
        if self.logger is None or self.logger_propensity.shape[1:] != (int(self.logger.max()) + 1,):
            raise AttributionError(
                f"`logger_propensity` has shape {self.logger_propensity.shape}. It needs a row for "
                "each choice, a column for each code of `logger`."
            )
        own = self.logger_propensity[np.arange(self.n), self.logger]
        refuse_rows(
            ~(np.abs(own - self.propensity) <= PMF_TOLERANCE * self.propensity + 1e-12)
            | ~((self.logger_propensity >= 0) & (self.logger_propensity <= 1)).all(axis=1),
            "logger_propensity",
            "is not in [0, 1], or its logger's own entry is not `propensity`,",
            "Give every logger's probability of the logged action.",
        )

    def _check_range(self) -> None:
        if not self.max_weight > 1:
            raise AttributionError(f"`max_weight` is {self.max_weight}. It must exceed 1.")
        if self.max_rows is not None:
            most = 1 if self.unit is None else int(np.bincount(self.unit).max())
            if self.max_rows < most:
                raise AttributionError(
                    f"`max_rows` is {self.max_rows} but a unit has {most} rows. "
                    "Declare the number that is possible, not the one that was expected."
                )
        if self.reward_range is not None:
            check_range(self.reward_range, self.reward)

    def _check_eligible(self) -> None:
        mask = self.eligible
        if mask is None or mask.shape != (self.n, self.k):
            raise AttributionError(
                f"`eligible` has shape {None if mask is None else mask.shape}. "
                f"It must be {(self.n, self.k)}: a row for each choice, a column for each action."
            )
        refuse_rows(
            ~mask[np.arange(self.n), self.action],
            "eligible",
            "excludes the action that was drawn",
            "Log the eligible set of the draw itself.",
        )

    def _check_pmf(self, pmf: FloatArray) -> None:
        check_pmf("pmf", pmf, self)
        logged = pmf[np.arange(self.n), self.action]
        refuse_rows(
            np.abs(logged - self.propensity) > PMF_TOLERANCE * self.propensity + 1e-12,
            "propensity",
            "is not the logged action's entry of `pmf`",
            "Log the probability of the action that was drawn.",
            self.propensity,
        )

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.action)

    @property
    def k(self) -> int:
        """Actions."""
        return len(self.actions)

    @property
    def n_units(self) -> int:
        """Units; rows where no unit was given."""
        return self.n if self.unit is None else int(self.unit.max()) + 1

    def uniform(self) -> FloatArray:
        """The target that draws each eligible action alike, (n, k)."""
        mask = np.ones((self.n, self.k)) if self.eligible is None else self.eligible.astype(float)
        size: FloatArray = mask.sum(axis=1, keepdims=True)
        return mask / size

    def always(self, action: Hashable) -> FloatArray:
        """The target that takes one action wherever it is asked, (n, k).

        Raises
        ------
        AttributionError
            If the action is unknown, or not eligible in some row.
        """
        if action not in self.actions:
            raise AttributionError(
                f"`action` is {action!r}, which the log does not know. "
                f"Known: {', '.join(map(str, self.actions))}."
            )
        index = self.actions.index(action)
        if self.eligible is not None:
            refuse_rows(
                ~self.eligible[:, index],
                str(action),
                "is not eligible",
                "Say what the target does there and pass its pmf, (n, k).",
            )
        pmf = np.zeros((self.n, self.k))
        pmf[:, index] = 1.0
        return pmf

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        action: str,
        reward: str,
        propensity: str | float,
        unit: str | None = None,
        actions: Sequence[Hashable] | None = None,
        eligible: npt.ArrayLike | None = None,
        pmf: npt.ArrayLike | None = None,
        context: Sequence[str] = (),
        time: str | None = None,
        logger: str | None = None,
        adaptive: bool | None = None,
        decision_id: str | None = None,
        reward_range: tuple[float, float] | None = None,
        max_weight: float | None = None,
        max_rows: int | None = None,
        logger_propensity: npt.ArrayLike | None = None,
        embedding: str | None = None,
        observed: str | None = None,
    ) -> Self:
        """Read a log from a pandas, polars or Arrow table, or from a Parquet file.

        Parameters
        ----------
        frame
            The table, or the path of a Parquet file.
        action, reward, unit, time, logger
            Names of columns.
        propensity
            Name of a column, or the one probability with which every row was drawn.
        actions
            All actions that could be drawn; the ones that were, sorted, if not given.
        context
            Names of the columns that describe the choice.
        decision_id
            Name of a column that must not repeat.
        embedding
            Name of the column with the logged action's embedding, as a category.
        observed
            Name of a boolean column: whether the row's outcome is known. Rows without are left
            out and counted in ``missing``, by action.
        reward_range
            If not given and the reward column is boolean, (0, 1): its type declares it.

        Raises
        ------
        AttributionError
            If a column is missing or of the wrong type, or a row is not valid; the message
            names the column, how many rows, the first of them, and the repair.
        """
        table = as_pandas(frame)
        if decision_id is not None:
            refuse_repeats(table, decision_id, "decision_id", "Keep one row for each decision.")
        drawn = column(table, action, "action")
        refuse_rows(
            drawn.isna().to_numpy(), action, "is missing", "Leave out rows without an action."
        )
        known = _sorted(drawn, action) if actions is None else tuple(actions)
        index = pd.Index(known)
        if not index.is_unique:
            raise AttributionError("`actions` names an action twice. Each must be there once.")
        codes: IntArray = index.get_indexer(pd.Index(drawn))
        refuse_rows(
            codes < 0,
            action,
            "is not one of `actions`",
            "Add it to `actions`, which lists all that could be drawn.",
            drawn.to_numpy(),
        )
        known_outcome: BoolArray | slice = slice(None)
        missing: IntArray | None = None
        if observed is not None:
            known_outcome = _booleans(table, observed, "observed")
            missing = np.bincount(codes[~known_outcome], minlength=len(known)).astype(np.intp)
            table, codes = table[known_outcome].reset_index(drop=True), codes[known_outcome]
        if reward_range is None and pd.api.types.is_bool_dtype(column(table, reward, "reward")):
            reward_range = (0.0, 1.0)
        with counted_in_frame(known_outcome):
            return cls(
                actions=known,
                action=codes.astype(np.intp),
                reward=numbers(table, reward, "reward"),
                propensity=(
                    numbers(table, propensity, "propensity")
                    if isinstance(propensity, str)
                    else np.full(len(table), float(propensity))
                ),
                unit=None if unit is None else _codes(table, unit, "unit"),
                eligible=(
                    None
                    if eligible is None
                    else _known("eligible", _as_mask(eligible), known_outcome)
                ),
                pmf=None if pmf is None else _known("pmf", as_numbers("pmf", pmf), known_outcome),
                context=_context(table, context),
                time=None if time is None else _times(table, time),
                logger=None if logger is None else _codes(table, logger, "logger"),
                adaptive=adaptive,
                reward_range=reward_range,
                max_weight=math.inf if max_weight is None else max_weight,
                max_rows=max_rows,
                logger_propensity=(
                    None
                    if logger_propensity is None
                    else _known(
                        "logger_propensity",
                        as_numbers("logger_propensity", logger_propensity),
                        known_outcome,
                    )
                ),
                embedding=None if embedding is None else _codes(table, embedding, "embedding"),
                missing=missing,
                columns=table,
            )


def check_range(reward_range: tuple[float, float], reward: FloatArray, of: str = "") -> None:
    """Raise unless the range is one, and holds every reward (n,); ``of`` says what they are of."""
    ends = as_numbers("reward_range", reward_range)
    if ends.shape != (2,) or not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise AttributionError(
            f"`reward_range` is {reward_range}. It must be two finite numbers, low < high."
        )
    low, high = reward_range
    refuse_rows(
        (reward < low) | (reward > high),
        "reward",
        f"{of}lies outside `reward_range` ({low}, {high})",
        "Declare the range that is possible, not the one that was expected.",
        reward,
    )


def as_numbers(name: str, values: object) -> FloatArray:
    """``values`` as an array of float64, without a copy where they are one.

    Raises
    ------
    AttributionError
        If they are not numbers, or rows of unequal length.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        said = str(error).rstrip(".")
        raise AttributionError(f"`{name}` must be an array of numbers: {said}.") from error


def _as_mask(values: object) -> BoolArray:
    """Truths, also where they come as zeros and ones; all else would count as true."""
    if isinstance(values, np.ndarray) and values.dtype == np.bool_:
        return values
    mask = as_numbers("eligible", values)
    other = (mask != 0) & (mask != 1)
    refuse_rows(
        other.reshape(len(other), -1).any(axis=1) if mask.ndim else np.array([True]),
        "eligible",
        "holds other than true and false",
        "Say of each action whether it could be drawn.",
    )
    return mask.astype(bool)


def _known(name: str, values: npt.NDArray[Any], known: BoolArray | slice) -> npt.NDArray[Any]:
    """The rows whose outcome is known, of an array with one for each row of the frame."""
    if isinstance(known, slice):
        return values
    if values.shape[:1] != known.shape:
        raise AttributionError(
            f"`{name}` has shape {values.shape} and the frame {len(known):,} rows. Give a row for "
            "each of them, with an outcome or without."
        )
    return values[known]


@contextmanager
def counted_in_frame(known: BoolArray | slice) -> Iterator[None]:
    """Refusals of rows that are told where they stand in the frame, of which some were left out."""
    try:
        yield
    except AttributionError as error:
        if isinstance(known, slice) or error.row is None:
            raise
        row = int(np.flatnonzero(known)[error.row])
        raise AttributionError(
            f"{error} Rows are counted among those with an outcome: it is row {row} of all.",
            count=error.count,
            row=row,
        ) from error


def check_pmf(name: str, pmf: FloatArray, log: EvaluationLog) -> None:
    """Raise unless ``pmf`` is an (n, k) pmf over the eligible actions of each row."""
    for _ in checked(name, pmf, log):
        pass


def checked(name: str, pmf: FloatArray, log: EvaluationLog) -> Iterator[slice]:
    """The rows of ``pmf`` a block at a time, each found to be a pmf over the eligible actions.

    Whoever reads a block right after finds it in the cache.
    """
    if pmf.shape != (log.n, log.k):
        raise AttributionError(
            f"`{name}` has shape {pmf.shape}. It must be {(log.n, log.k)}: "
            "a row for each choice, a column for each of `actions`."
        )
    ones = np.ones(log.k)
    for rows in blocks(log.n, -(-log.k // _CHECKED)):
        block = pmf[rows]
        # Five times as fast as a sum along the short axis of a matrix.
        total = np.matvec(block, ones)
        total -= 1
        # A NaN or an infinity fails the comparison too, so one pass finds all three faults.
        if not (np.abs(total, out=total).max() <= PMF_TOLERANCE and block.min() >= 0):
            _refuse_pmf(name, pmf)
        if log.eligible is not None:
            inside = np.einsum("ij,ij->i", block, log.eligible[rows])
            if inside.min() < 1 - 2 * PMF_TOLERANCE:
                refuse_rows(
                    np.einsum("ij->i", pmf) - np.einsum("ij,ij->i", pmf, log.eligible)
                    > PMF_TOLERANCE,
                    name,
                    "gives probability to an action that is not eligible",
                    "Restrict it to the eligible set of each row.",
                )
        yield rows


def _refuse_pmf(name: str, pmf: FloatArray) -> None:
    total = pmf.sum(axis=1)
    refuse_rows(
        ~(np.abs(total - 1) <= PMF_TOLERANCE),
        name,
        "does not sum to one",
        "Pass a probability for each of `actions`, in their order.",
        total,
    )
    refuse_rows(pmf.min(axis=1) < 0, name, "is negative", "Probabilities lie in [0, 1].")


def as_pandas(frame: Any) -> pd.DataFrame:
    """A pandas frame, numbered from 0, from pandas, polars, Arrow or a Parquet path."""
    if isinstance(frame, str | PathLike):
        try:
            return pd.read_parquet(frame)
        # What Arrow says of a file's content are ValueErrors.
        except (OSError, ValueError) as error:
            raise AttributionError(
                f"`{fspath(frame)}` cannot be read as Parquet: {error}. Name a file that can."
            ) from error
    if isinstance(frame, pd.DataFrame):
        return frame.reset_index(drop=True)
    if hasattr(frame, "to_pandas"):
        table = frame.to_pandas()
        if isinstance(table, pd.DataFrame):
            return table
    raise AttributionError(
        f"`frame` is a {type(frame).__name__}. Pass a pandas, polars or Arrow table, or a path."
    )


def column(table: pd.DataFrame, name: str, role: str) -> pd.Series[Any]:
    """The column called ``name``, or an error that lists those there are."""
    if name not in table.columns:
        raise AttributionError(
            f"`{role}` is {name!r}, which is not a column. "
            f"Columns: {', '.join(map(str, table.columns))}."
        )
    called = list(table.columns).count(name)
    if called > 1:
        raise AttributionError(f"`{role}` is {name!r}, and {called} columns are called so. Rename.")
    return table[name]


def refuse_repeats(table: pd.DataFrame, name: str, role: str, repair: str) -> None:
    """Raise if a row has no value in the column called ``name``, or that of an earlier one."""
    ids = column(table, name, role)
    refuse_rows(ids.isna().to_numpy(), name, "is missing", f"Give every row its {role}.")
    repeated = ids.duplicated().to_numpy()
    refuse_rows(repeated, name, "repeats an earlier row's", repair, ids.to_numpy())


def numbers(table: pd.DataFrame, name: str, role: str) -> FloatArray:
    """The column called ``name`` as float64; missing values become NaN."""
    series = column(table, name, role)
    if not pd.api.types.is_numeric_dtype(series):
        repair = "It must hold numbers: convert it with pandas.to_numeric."
        if series.dtype == object or isinstance(series.dtype, pd.StringDtype):
            wrong = pd.to_numeric(series, errors="coerce").isna() & series.notna()
            said = f"is column {name!r}, which holds no number"
            refuse_rows(wrong.to_numpy(), role, said, repair, series.to_numpy())
        raise AttributionError(f"`{role}` is column {name!r} of type {series.dtype}. {repair}")
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _booleans(table: pd.DataFrame, name: str, role: str) -> BoolArray:
    series = column(table, name, role)
    if not pd.api.types.is_bool_dtype(series) or series.isna().any():
        raise AttributionError(
            f"`{role}` is column {name!r} of type {series.dtype}. It must hold true or false."
        )
    return series.to_numpy(dtype=bool)


def _is_codes(values: object) -> bool:
    return (
        isinstance(values, np.ndarray)
        and values.dtype != np.bool_
        and np.can_cast(values.dtype, np.intp, "safe")
    )


def _sorted(drawn: pd.Series[Any], name: str) -> tuple[Hashable, ...]:
    found = drawn.unique().tolist()
    try:
        return tuple(sorted(found))
    except TypeError as error:
        kinds = ", ".join(sorted({type(each).__name__ for each in found}))
        raise AttributionError(
            f"`{name}` holds {kinds}, which have no common order. "
            "Give all actions one type, or name them with `actions`."
        ) from error


def _codes(table: pd.DataFrame, name: str, role: str) -> IntArray:
    series = column(table, name, role)
    refuse_rows(series.isna().to_numpy(), name, "is missing", f"Give every row its {role}.")
    # Sorted, so that codes do not depend on the order of the rows.
    return pd.factorize(series, sort=True)[0].astype(np.intp)


def _context(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame | None:
    for name in names:
        column(table, name, "context")
    return table[list(names)] if names else None


def _times(table: pd.DataFrame, name: str) -> npt.NDArray[np.datetime64]:
    series = column(table, name, "time")
    if not pd.api.types.is_datetime64_any_dtype(series):
        raise AttributionError(
            f"`time` is column {name!r} of type {series.dtype}. It must hold timestamps: "
            "convert it with pandas.to_datetime(..., utc=True)."
        )
    refuse_rows(series.isna().to_numpy(), name, "is missing", "Give every row its time.")
    if series.dt.tz is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return series.to_numpy(dtype="datetime64[us]")
