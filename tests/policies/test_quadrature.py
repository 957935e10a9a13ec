"""Exact Thompson pmfs against scipy's adaptive quadrature, closed forms and large simulations."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import beta, betaprime, norm

from policies import FloatArray
from policies.quadrature import _beta_edges, largest_beta, largest_gamma, largest_gaussian


def by_adaptive_quadrature(distributions: list[object], breaks: FloatArray) -> FloatArray:
    """P(each is largest), by QUADPACK between the given breaks."""

    def density(x: float, a: int) -> float:
        product = 1.0
        for b, other in enumerate(distributions):
            product *= other.pdf(x) if a == b else other.cdf(x)  # type: ignore[attr-defined]  # scipy's frozen distributions have no types
        return product

    edges = np.unique(breaks)
    return np.array(
        [
            sum(
                quad(density, lo, hi, args=(a,), epsabs=1e-11, epsrel=1e-10)[0]
                for lo, hi in pairwise(edges)
            )
            for a in range(len(distributions))
        ]
    )


def around(centre: FloatArray, scale: FloatArray) -> FloatArray:
    return np.concatenate([centre + c * scale for c in (-9, -5, -2, 0, 2, 5, 9)])


@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        ([0.0, 0.0], [1.0, 1.0]),
        ([0.3, 0.1, -0.2, 0.4], [0.5, 0.4, 0.6, 0.3]),
        ([0.0, 0.1, 1.0], [1.0, 1e-3, 1e-6]),
        ([5.0, 4.9, 0.0, 3.0], [1e-4, 0.1, 10.0, 1.0]),
        ([0.0, 1e-7], [1.0, 1e-8]),
        ([1e6, 1e6 + 1e-3], [1e-3, 2e-3]),
    ],
)
def test_a_gaussian_pmf_equals_adaptive_quadrature(mean: list[float], scale: list[float]) -> None:
    m, s = np.array(mean), np.array(scale)
    exact = by_adaptive_quadrature(
        [norm(a, b) for a, b in zip(m - m.max(), s, strict=True)], around(m - m.max(), s)
    )
    np.testing.assert_allclose(largest_gaussian(m[None], s[None])[0], exact, rtol=0, atol=1e-8)


def test_two_gaussians_have_the_closed_form() -> None:
    """P(X > Y) = Φ((m₁ − m₂) / √(s₁² + s₂²)), over scales that span eight decades."""
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(500, 2)) * 10.0 ** rng.uniform(-3, 1, (500, 1))
    scale = 10.0 ** rng.uniform(-4, 4, (500, 2))
    exact = ndtr((mean[:, 0] - mean[:, 1]) / np.hypot(scale[:, 0], scale[:, 1]))
    np.testing.assert_allclose(largest_gaussian(mean, scale)[:, 0], exact, rtol=0, atol=1e-8)


def test_a_gaussian_pmf_agrees_with_two_million_draws() -> None:
    mean, scale = np.array([0.2, 0.0, 0.5, 0.45]), np.array([1.0, 2.0, 0.1, 0.4])
    rng = np.random.default_rng(2)
    n = 2_000_000
    best = (mean + scale * rng.standard_normal((n, 4))).argmax(axis=1)
    pmf = largest_gaussian(mean[None], scale[None])[0]
    z = (np.bincount(best, minlength=4) / n - pmf) / np.sqrt(pmf * (1 - pmf) / n)
    assert np.abs(z).max() < 4.0


@pytest.mark.parametrize("actions", [11, 20, 50, 200])
def test_a_gaussian_pmf_over_many_actions_equals_a_trapezoid_sum(actions: int) -> None:
    """The trapezoid rule over 20,000 points, exponentially accurate for what decays so fast."""
    rng = np.random.default_rng(actions)
    for spread, ratio in ((0.0, 1.0), (0.3, 1.0), (1.0, 1.3), (0.3, 1.8)):
        mean = spread * rng.normal(size=actions)
        scale = ratio ** rng.uniform(-0.5, 0.5, actions)
        x = np.linspace(mean.min() - 9 * scale.max(), mean.max() + 9 * scale.max(), 20_000)
        z = (x[:, None] - mean) / scale
        below = np.maximum(ndtr(z), 1e-300)
        exact = below.prod(axis=1) @ (np.exp(-0.5 * z * z) / scale / below)
        exact /= exact.sum()
        pmf = largest_gaussian(mean[None], scale[None])[0]
        np.testing.assert_allclose(pmf, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("actions", [2, 3, 10, 11, 50])
def test_every_number_of_nodes_is_enough_for_the_range_that_it_serves(actions: int) -> None:
    """Within 2e-9 of a trapezoid sum, over scales whose ratio goes from one to that of panels."""
    rng = np.random.default_rng(actions)
    for spread in (0.0, 0.3, 1.0, 3.0):
        mean = spread * rng.normal(size=(24, actions))
        scale = 9.0 ** (-rng.uniform(size=(24, 1)) * rng.uniform(size=(24, actions)))
        pmf = largest_gaussian(mean, scale)
        for m, s, found in zip(mean, scale, pmf, strict=True):
            x = np.linspace((m - 9 * s).max(), (m + 9 * s).max(), 1_500)
            z = (x[:, None] - m) / s
            below = np.maximum(ndtr(z), 1e-300)
            exact = below.prod(axis=1) @ (np.exp(-0.5 * z * z) / s / below)
            np.testing.assert_allclose(found, exact / exact.sum(), rtol=0, atol=2e-9)


def test_certain_scores_share_alike_when_equal_and_win_when_largest() -> None:
    zero = np.zeros((1, 3))
    np.testing.assert_allclose(largest_gaussian(zero, zero), [[1 / 3, 1 / 3, 1 / 3]], atol=1e-12)
    np.testing.assert_allclose(
        largest_gaussian(np.array([[1.0, 2.0, 2.0]]), zero), [[0.0, 0.5, 0.5]], atol=1e-12
    )


def test_rows_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=(40, 6)), 10.0 ** rng.uniform(-3, 1, (40, 6))
    together = largest_gaussian(mean, scale)
    alone = np.vstack(
        [largest_gaussian(m[None], s[None]) for m, s in zip(mean, scale, strict=True)]
    )
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-14)


def test_a_thousand_actions_of_unlike_scales_stay_within_memory() -> None:
    """Equal actions share alike, though 70,000 nodes by 1,000 actions are taken in parts."""
    scale = np.ones((1, 1000))
    scale[0, 500:] = 1e-3
    pmf = largest_gaussian(np.zeros((1, 1000)), scale)[0]
    np.testing.assert_allclose(pmf[:500], 1 / 500, rtol=1e-9)
    assert pmf[500:].max() < 1e-12


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 1.0], [1.0, 1.0]),
        ([0.5, 0.5, 3.0], [1.0, 2.0, 1.0]),
        ([0.7, 1.3, 2.9], [1.1, 1.7, 1.0]),
        ([20.0, 25.0, 2.0], [80.0, 70.0, 5.0]),
        ([1000.0, 1.0, 1020.0], [99000.0, 1.0, 98980.0]),
    ],
)
def test_a_beta_pmf_equals_adaptive_quadrature(a: list[float], b: list[float]) -> None:
    shapes = [beta(x, y) for x, y in zip(a, b, strict=True)]
    centre = np.array([s.mean() for s in shapes])
    spread = np.array([s.std() for s in shapes])
    ends = np.array([0.0, 1e-13, 1e-10, 1e-7, 1e-4, 1e-2])
    inside = np.clip(around(centre, spread), 0.0, 1.0)
    exact = by_adaptive_quadrature(shapes, np.concatenate([inside, ends, [1.0]]))
    np.testing.assert_allclose(largest_beta(np.array(a), np.array(b)), exact, rtol=0, atol=1e-8)


def counts(
    rng: np.random.Generator, actions: int, successes: float, failures: float
) -> tuple[FloatArray, FloatArray]:
    a, b = 5.0 + rng.poisson((successes, failures), (actions, 2)).T.astype(np.float64)
    return a, b


@pytest.mark.parametrize("actions", [10, 60])
def test_a_beta_pmf_over_many_actions_equals_a_trapezoid_sum(actions: int) -> None:
    """Shapes alike and shapes unlike by decades, over 10,000 points of the angle."""
    rng = np.random.default_rng(actions)
    trials: FloatArray
    rate: FloatArray
    trials, rate = 10.0 ** rng.uniform(1, 4, actions), rng.beta(4, 8, actions)
    for a, b in (
        counts(rng, actions, 30, 200),
        (5.0 + trials * rate, 5.0 + trials * (1 - rate)),
    ):
        theta = np.linspace(0.0, np.pi / 2, 10_002)[1:-1, None]
        x = np.sin(theta) ** 2
        below, density = np.ones(len(x)), np.empty((len(x), actions))
        for action in range(actions):
            shape = beta(a[action], b[action])
            under = np.maximum(shape.cdf(x[:, 0]), 1e-300)
            below *= under
            density[:, action] = shape.pdf(x[:, 0]) * np.sin(2 * theta[:, 0]) / under
        exact = below @ density
        exact /= exact.sum()
        np.testing.assert_allclose(largest_beta(a, b), exact, rtol=0, atol=1e-9)


def test_two_hundred_beta_actions_are_settled_in_few_evaluations() -> None:
    """Their common range is cut once: seven panels for each of them were gigabytes."""
    rng = np.random.default_rng(5)
    a, b = counts(rng, 200, 30, 900)
    assert len(_beta_edges(a, b, 0.0, np.pi / 2)) < 100
    tracemalloc.start()
    pmf = largest_beta(a, b)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(pmf.sum() - 1.0) < 1e-12
    assert peak < 50e6


def test_a_beta_pmf_agrees_with_two_million_draws() -> None:
    a, b = np.array([2.0, 30.0, 0.5, 300.0]), np.array([8.0, 100.0, 0.6, 900.0])
    n = 2_000_000
    best = np.random.default_rng(4).beta(a, b, (n, 4)).argmax(axis=1)
    pmf = largest_beta(a, b)
    z = (np.bincount(best, minlength=4) / n - pmf) / np.sqrt(pmf * (1 - pmf) / n)
    assert np.abs(z).max() < 4.0


def test_a_beta_pmf_survives_a_long_history() -> None:
    """At 1e8 trials an action the normal approximation is exact enough to compare with."""
    a = np.array([1.0e7, 1.0003e7, 0.5])
    b = np.array([9.0e7, 8.9997e7, 1e9])
    mean, n = a / (a + b), a + b
    scale = np.sqrt(mean * (1 - mean) / n)
    normal = largest_gaussian(mean[None], scale[None])[0]
    np.testing.assert_allclose(largest_beta(a, b), normal, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "rate"),
    [((1, 1), (1, 1)), ((0.5, 3), (2, 4)), ((0.5, 1e6), (0.5, 3e6)), ((4e5, 4.02e5), (1e6, 1e6))],
)
def test_two_gammas_have_the_closed_form(
    shape: tuple[float, float], rate: tuple[float, float]
) -> None:
    """The ratio of two gamma variables of rate one is beta prime."""
    exact = betaprime(shape[0], shape[1]).sf(rate[0] / rate[1])
    pmf = largest_gamma(np.array(shape, float), np.array(rate, float))
    np.testing.assert_allclose(pmf, [exact, 1.0 - exact], rtol=0, atol=1e-9)


def test_a_gamma_pmf_agrees_with_two_million_draws() -> None:
    shape, rate = np.array([0.5, 3.0, 40.0, 900.0]), np.array([1.0, 2.0, 30.0, 700.0])
    n = 2_000_000
    best = (np.random.default_rng(5).gamma(shape, 1.0, (n, 4)) / rate).argmax(axis=1)
    pmf = largest_gamma(shape, rate)
    shares = np.bincount(best, minlength=4) / n
    assert (np.abs(pmf - shares) < 4.5 * np.sqrt(pmf * (1 - pmf) / n)).all()


@pytest.mark.parametrize("unit", [2.0**-1060, 2.0**-950])
def test_numbers_at_the_edge_of_floats_have_the_pmf_of_their_proportions(unit: float) -> None:
    mean, scale = np.array([[0.0, -2.0, -1.0]]), np.array([[1.0, 4.0, 2.0]])
    expected = largest_gaussian(mean, scale)
    np.testing.assert_allclose(largest_gaussian(unit * mean, unit * scale), expected, atol=1e-9)
