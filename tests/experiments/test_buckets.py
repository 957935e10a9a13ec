"""The hash: fixed by vectors, the same in SQL, uniform, and independent between salts."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import ExperimentError, UnitRange, bucket, in_units, parse_units
from experiments.buckets import _fraction, bucketer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bucket.json").read_text())["vectors"]
SQL = "(('0x' || substr(md5(salt || ':' || unit), 1, 14))::BIGINT >> 3) / 9007199254740992.0"
FALSE_ALARM = 1e-3


def buckets(salt: str, n: int) -> np.ndarray:
    """(n,) buckets of sequential ids."""
    of = bucketer(salt)
    return np.array([of(f"u:{i}") for i in range(n)])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['salt']}:{v['unit'][:20]}")
def test_buckets_are_those_of_the_golden_vectors(vector: dict[str, str]) -> None:
    place = bucket(vector["salt"], vector["unit"])
    assert place == bucketer(vector["salt"])(vector["unit"])
    assert repr(place) == vector["bucket"]
    assert int(place * 2**53) == int(vector["numerator"])
    assert int(vector["first64"]) == int(vector["md5"][:16], 16)
    assert int(vector["numerator"]) == int(vector["first64"]) >> 11


def test_a_warehouse_recomputes_buckets_exactly() -> None:
    """DuckDB's own MD5 and arithmetic, over the golden vectors and 5,000 more units."""
    pairs = [(vector["salt"], vector["unit"]) for vector in VECTORS]
    pairs += [("layer.homepage", f"u:{i}") for i in range(5_000)]
    table = {"salt": [salt for salt, _ in pairs], "unit": [unit for _, unit in pairs]}
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT {SQL} FROM (SELECT unnest($salt) AS salt, unnest($unit) AS unit)", table
        ).fetchall()
    assert [place for (place,) in rows] == [bucket(salt, unit) for salt, unit in pairs]


def test_the_documented_sql_is_the_one_tested_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    assert SQL in page


def test_the_largest_bucket_is_below_one() -> None:
    assert _fraction(b"\xff" * 16) == 1 - 2**-53
    assert _fraction(b"\x00" * 16) == 0


@given(st.text(), st.text())
@settings(deadline=None, derandomize=True)
def test_every_bucket_is_a_multiple_of_two_to_the_minus_53_in_the_unit_interval(
    salt: str, unit: str
) -> None:
    place = bucket(salt, unit)
    assert 0 <= place < 1
    assert (place * 2**53).is_integer()


@pytest.mark.parametrize("salt", ["layer.homepage", "ramp.exp_a", "variant.exp_a", "units", "x"])
def test_sequential_ids_are_spread_uniformly(salt: str) -> None:
    """χ² over 1,000 cells sees clumps, Kolmogorov and Smirnov see drifts; 10 tests in all."""
    places = buckets(salt, 50_000)
    counts = np.bincount((places * 1_000).astype(int), minlength=1_000)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM / 10
    assert stats.kstest(places, "uniform").pvalue > FALSE_ALARM / 10


def test_neighbouring_ids_are_independent() -> None:
    places = buckets("layer.homepage", 50_000)
    assert stats.pearsonr(places[:-1], places[1:]).pvalue > FALSE_ALARM


def dependence(columns: list[np.ndarray], cells: int = 5) -> tuple[float, np.ndarray]:
    """The largest Cramér's V over all pairs of columns cut into ``cells``, and every p-value."""
    cut = [(column * cells).astype(int) for column in columns]
    largest, p_values = 0.0, []
    for left, right in combinations(cut, 2):
        table = np.zeros((cells, cells))
        np.add.at(table, (left, right), 1)
        test = stats.chi2_contingency(table)
        largest = max(largest, float(np.sqrt(test.statistic / (table.sum() * (cells - 1)))))
        p_values.append(test.pvalue)
    return largest, np.array(p_values)


NEAR_IDENTICAL = [
    *(f"layer.layer{i}" for i in range(1, 9)),
    *(f"variant.exp_{c}" for c in "abcdefgh"),
    *(f"ramp.exp_{c}" for c in "abcd"),
    *(f"holdout.global_{year}" for year in range(2025, 2029)),
]


def test_near_identical_salts_give_independent_buckets() -> None:
    """276 pairs: no p-value too small for their number, nor the p-values too small together.

    Cramér's V of independent columns has mean square 1 / (n (cells − 1)) (cells − 1)² here, so
    0.03 is over six standard errors away for every pair.
    """
    largest, p_values = dependence([buckets(salt, 20_000) for salt in NEAR_IDENTICAL])
    assert len(p_values) == 276
    assert p_values.min() > FALSE_ALARM / len(p_values)
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM
    assert largest < 0.03


def test_the_test_of_independence_fails_a_hash_that_is_known_to_be_weak() -> None:
    """FNV-1a of unit and then salt, modulo 1,000, as an early version of a popular library had."""

    def weak(salt: str, unit: str) -> float:
        state = 0x811C9DC5
        for byte in f"{unit}{salt}".encode():
            state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
        return state % 1_000 / 1_000

    columns = [
        np.array([weak(salt, f"u:{i}") for i in range(5_000)]) for salt in NEAR_IDENTICAL[8:12]
    ]
    largest, p_values = dependence(columns)
    assert p_values.min() < 1e-12
    assert largest > 0.1


def test_a_selector_and_its_complement_share_the_units_out() -> None:
    for i in range(1_000):
        unit = f"u:{i}"
        assert in_units("0:0.5", unit) + in_units("0.5:1", unit) == 1
    assert all(in_units("0:1", f"u:{i}") for i in range(1_000))
    assert parse_units("0.25:1") == UnitRange(0.25, 1)


def test_a_selector_takes_another_part_under_another_salt() -> None:
    first = np.array([in_units("0:0.5", f"u:{i}") for i in range(4_000)])
    second = np.array([in_units("0:0.5", f"u:{i}", "other") for i in range(4_000)])
    assert stats.chi2_contingency(np.histogram2d(first, second, 2)[0]).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    "text", ["", ":", "0.5", "a:b", "0.5:0.2", "0.5:0.5", "-1:1", "0:2", "nan:1"]
)
def test_a_bad_selector_is_refused_with_the_repair(text: str) -> None:
    with pytest.raises(ExperimentError, match=r"write low:high with 0 ≤ low < high ≤ 1"):
        parse_units(text)
