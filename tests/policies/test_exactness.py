"""Exact Thompson pmfs against ten million seeded draws of the scores themselves."""

from collections.abc import Callable

import numpy as np
import pytest

from policies.quadrature import largest_beta, largest_gamma, largest_gaussian

DRAWS, CHUNK = 10_000_000, 1_000_000
Scores = Callable[[np.random.Generator, int], np.ndarray]
MEAN, SCALE = np.array([0.0, 0.3, -0.5, 0.25]), np.array([0.4, 0.05, 1.0, 0.2])
A, B = np.array([3.0, 30.0, 0.5]), np.array([7.0, 80.0, 0.7])
SHAPE, RATE = np.array([0.5, 6.0, 90.0]), np.array([0.4, 5.0, 80.0])


@pytest.mark.parametrize(
    ("pmf", "scores"),
    [
        (
            largest_gaussian(MEAN[None], SCALE[None])[0],
            lambda rng, n: rng.standard_normal((n, 4)) * SCALE + MEAN,
        ),
        (largest_beta(A, B), lambda rng, n: rng.beta(A, B, (n, 3))),
        (largest_gamma(SHAPE, RATE), lambda rng, n: rng.gamma(SHAPE, 1.0, (n, 3)) / RATE),
    ],
    ids=["gaussian", "beta", "gamma"],
)
def test_a_pmf_is_the_share_of_draws_that_were_the_largest(pmf: np.ndarray, scores: Scores) -> None:
    rng = np.random.default_rng(1)
    best = np.zeros(len(pmf))
    for _ in range(DRAWS // CHUNK):
        best += np.bincount(scores(rng, CHUNK).argmax(axis=1), minlength=len(pmf))
    deviation = np.sqrt(pmf * (1.0 - pmf) / DRAWS)
    assert (np.abs(best / DRAWS - pmf) < 4.5 * deviation + 1e-8).all()
