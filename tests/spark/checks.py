"""On a cluster of two threads an evaluation gives the numbers of one in memory; `make spark`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from attribution import AttributionError, evaluate_batches, evaluate_spark
from tests.attribution.test_streaming import (
    COLUMNS,
    TARGETS,
    TUNING,
    assert_alike,
    in_memory,
    table,
)

# We hand Spark Arrow batches, and no pandas frame.
pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        made = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "3")
            .getOrCreate()
        )
        yield made
        made.stop()


@pytest.mark.parametrize("unit", [None, "unit"])
@pytest.mark.parametrize("interval", ["auto", "cressie_read"])
def test_a_cluster_tells_what_the_log_in_memory_does(
    session: SparkSession, unit: str | None, interval: Any
) -> None:
    log = table(1, 5000, units=800)
    columns = replace(COLUMNS, unit=unit, observed="known")
    asked: dict[str, Any] = {
        "estimators": ["ips", "snips", "dm", "dr", "sndr", "clipped_ips", "cressie_read"],
        "tuning": TUNING,
        "interval": interval,
        "against": "all",
    }
    frame = session.createDataFrame(log).repartition(4)
    found = evaluate_spark(frame, columns, TARGETS, q_hat="q_hat", **asked)
    assert found.results[0].n < 5000
    assert_alike(found, in_memory(log, columns, **asked))


def test_a_function_of_a_batch_goes_to_the_executors(session: SparkSession) -> None:
    def near(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
        return np.array(batch["near"].to_pylist())

    log = table(2, 3000)
    found = evaluate_spark(session.createDataFrame(log), COLUMNS, {"t": near}, ["ips"])
    assert_alike(found, evaluate_batches(log, COLUMNS, {"t": "near"}, ["ips"]))


def test_the_bootstrap_spreads_as_the_jackknife_does(session: SparkSession) -> None:
    """Each partition draws its own weights, so that the draws are others than in memory."""
    log = table(3, 6000)
    asked: dict[str, Any] = {"interval": "bootstrap", "against": "logging"}
    frame = session.createDataFrame(log).repartition(4)
    found = evaluate_spark(frame, COLUMNS, {"t": "near"}, ["ips", "snips"], **asked)
    for rows in (found.table(), found.comparisons()):
        normal = 2 * 1.96 * rows["se"]
        np.testing.assert_allclose((rows["high"] - rows["low"]) / normal, 1, atol=0.15)


def test_what_is_not_valid_is_refused_with_its_reason(session: SparkSession) -> None:
    log = table(4, 100)
    frame = session.createDataFrame(log)
    with pytest.raises(AttributionError, match="'gone' is not a column"):
        evaluate_spark(frame, COLUMNS, {"t": "gone"}, ["ips"])
    wrong = frame.withColumn("p", frame["p"] * 0)
    with pytest.raises(PythonException, match=r"`propensity` is not in \(0, 1\]"):
        evaluate_spark(wrong, replace(COLUMNS, pmf=None), {"t": "near"}, ["ips"])
