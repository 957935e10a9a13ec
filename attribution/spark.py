"""Evaluation of a log on an Apache Spark cluster: `attribution.partial` runs in each partition.

Needs the extra ``evenhand[spark]`` and Java 17, and the package installed where the executors run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from attribution.batches import LogColumns, Matrix, check_names
from attribution.partial import Findings, Survey, settled, surveyed
from attribution.questions import Question
from attribution.report import EvaluationReport
from attribution.streaming import check_survey, reported

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

State = TypeVar("State", Survey, Findings)


def evaluate_spark(
    frame: DataFrame,
    columns: LogColumns,
    targets: Mapping[str, Matrix],
    estimators: Sequence[str] = ("ips", "snips", "dr"),
    **asked: Any,
) -> EvaluationReport:
    """`attribution.evaluate_batches` of a Spark frame; the same numbers.

    The frame is read twice: cache it if it is dear to make. With ``unit`` its rows are brought
    together by unit first, and an executor holds the unit sums of one partition. Only sums come
    back to the driver. The bootstrap draws anew in each partition, so that its ends depend on how
    the rows are spread.

    Parameters
    ----------
    targets
        As `attribution.evaluate_batches` has them; a function is sent to the executors.
    asked
        The other arguments of `attribution.evaluate_batches`, save ``parts``.

    Raises
    ------
    AttributionError
        If an argument is not valid. What an executor refuses, a row for instance, comes as Spark's
        ``PythonException`` with the message in it, its rows counted in their partition.
    """
    question = Question(columns, targets, tuple(estimators), **asked)
    check_names(question.names, frame.columns)
    if question.names is not None:
        frame = frame.select(*question.names)
    if columns.unit is not None:
        frame = frame.repartition(columns.unit)
    survey = _folded(frame, Survey, lambda batches, _: surveyed(question, batches))
    check_survey(question, survey)
    findings = _folded(
        frame, Findings, lambda batches, part: settled(question, batches, survey, part)
    )
    return reported(question, survey, findings)


def _folded(
    frame: DataFrame,
    kind: type[State],
    partial: Callable[[Iterable[pa.RecordBatch], int], State],
) -> State:
    """What ``partial`` gives of each partition and its number, merged."""

    def states(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Spark is there where this runs; to read this module it need not be.
        from pyspark import TaskContext  # noqa: PLC0415

        state = partial(batches, TaskContext.get().partitionId())
        yield pa.RecordBatch.from_pydict({"state": pa.array([encoded(state)], pa.binary())})

    rows = frame.mapInArrow(states, "state binary").collect()
    return reduce(add, (decoded(row.state, kind) for row in rows))


def encoded(state: Survey | Findings) -> bytes:
    """A state as bytes that hold numbers and names alone."""
    return msgspec.msgpack.encode(state, enc_hook=_plain)


def decoded(data: bytes, kind: type[State]) -> State:
    """The state that `encoded` made bytes of."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_array)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()
    raise NotImplementedError(f"a {type(value).__name__} is no part of a state")


def _array(kind: Any, value: Any) -> Any:
    del kind
    dtype, shape, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
