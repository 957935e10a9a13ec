"""Hillstrom's randomised e-mail test: subsamples' intervals cover the full data's group means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attribution import EvaluationLog, evaluate
from tests.attribution.worlds import at_least, shared_data

SUBSAMPLES = 150
ROWS = 2000
GROUPS = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")


def covered(metric: str, subsamples: int, seed: int) -> dict[tuple[str, str], int]:
    """How many subsamples' intervals hold each group's mean, by group and estimator."""
    frame = pd.read_csv(shared_data("hillstrom.csv.gz"))
    means = frame.groupby("segment")[metric].mean()
    rng = np.random.default_rng(seed)
    hits: dict[tuple[str, str], int] = {}
    for _ in range(subsamples):
        part = frame.iloc[rng.choice(len(frame), ROWS, replace=False)]
        log = EvaluationLog.from_frame(
            part, action="segment", reward=metric, propensity=1 / 3, actions=GROUPS
        )
        targets = {group: log.always(group) for group in GROUPS}
        for row in evaluate(log, targets, ["ips", "snips", "dr"]).results:
            key = row.target, row.estimator
            hits[key] = hits.get(key, 0) + (row.low <= means[row.target] <= row.high)
    return hits


@pytest.mark.parametrize("metric", ["visit"])
def test_subsamples_cover_the_groups_means(metric: str) -> None:
    for key, hits in covered(metric, SUBSAMPLES, seed=1).items():
        assert at_least(hits, SUBSAMPLES, 0.95), (key, hits)
