"""Pmf arithmetic and the draw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import FloatArray, PolicyError, apply_floor, draw, normalise

weight = st.just(0.0) | st.floats(1e-12, 1e12)
weights = st.lists(weight, min_size=1, max_size=30).filter(lambda w: sum(w) > 0.0)
uniforms = st.floats(0.0, 1.0, exclude_max=True)


@given(weights)
def test_normalising_keeps_proportions_and_sums_to_one(values: list[float]) -> None:
    pmf = normalise(np.array(values))
    assert abs(pmf.sum() - 1.0) <= 1e-12
    assert (pmf >= 0.0).all()
    largest = int(np.argmax(values))
    np.testing.assert_allclose(pmf / pmf[largest], np.array(values) / values[largest], rtol=1e-12)


def test_normalising_takes_rows_each_by_itself() -> None:
    pmf = normalise(np.array([[1.0, 3.0], [5.0, 0.0]]))
    np.testing.assert_array_equal(pmf, [[0.25, 0.75], [1.0, 0.0]])


def test_normalising_survives_subnormal_totals() -> None:
    np.testing.assert_allclose(normalise(np.array([5e-324, 5e-324])), [0.5, 0.5])


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [0.5, -0.1], [np.nan, 1.0], [np.inf, 1.0]], ids=str
)
def test_what_is_no_pmf_cannot_be_normalised(values: list[float]) -> None:
    with pytest.raises(PolicyError):
        normalise(np.array(values))


@given(weights, st.floats(0.0, 1.0))
def test_a_floor_bounds_every_probability_from_below(values: list[float], floor: float) -> None:
    pmf = normalise(np.array(values))
    floored = apply_floor(pmf, floor)
    assert abs(floored.sum() - 1.0) <= 1e-12
    assert (floored >= floor / len(values)).all()
    np.testing.assert_allclose(floored - floor / len(values), (1.0 - floor) * pmf, atol=1e-15)


def test_a_floor_by_hand() -> None:
    np.testing.assert_allclose(apply_floor(np.array([1.0, 0.0]), 0.1), [0.95, 0.05])


@pytest.mark.parametrize("floor", [-0.1, 1.1, np.nan])
def test_a_floor_outside_the_unit_interval_is_refused(floor: float) -> None:
    with pytest.raises(PolicyError, match="floor"):
        apply_floor(np.array([1.0]), floor)


@given(weights, uniforms)
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(
    values: list[float], u: float
) -> None:
    pmf = normalise(np.array(values))
    i = draw(pmf, u)
    assert pmf[i] > 0.0
    assert pmf[:i].sum() <= u + 1e-12
    assert u < pmf[: i + 1].sum() + 1e-12


@pytest.mark.parametrize(
    ("pmf", "u", "drawn"),
    [
        ([0.0, 1.0, 0.0], 0.0, 1),
        ([0.0, 1.0, 0.0], 1.0 - 2**-53, 1),
        ([0.5, 0.0, 0.5], 0.5, 2),
        ([0.25, 0.75], 0.25, 1),
        ([0.1] * 10 + [0.0], 1.0 - 2**-53, 9),
    ],
)
def test_a_draw_never_takes_an_impossible_action(pmf: list[float], u: float, drawn: int) -> None:
    assert draw(np.array(pmf), u) == drawn


@pytest.mark.parametrize("u", [-1e-9, 1.0, np.nan])
def test_a_draw_refuses_a_number_outside_its_interval(u: float) -> None:
    with pytest.raises(PolicyError, match="u is"):
        draw(np.array([1.0]), u)


def test_a_draw_refuses_what_does_not_sum_to_one() -> None:
    pmf: FloatArray = np.array([0.5, 0.4])
    with pytest.raises(PolicyError, match="sums to"):
        draw(pmf, 0.1)


def test_a_draw_refuses_a_negative_probability() -> None:
    with pytest.raises(PolicyError, match=r"holds -0\.5"):
        draw(np.array([1.5, -0.5]), 0.1)
