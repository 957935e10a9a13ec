"""The optional ranker of boosted trees; `make boosted` runs these, where LightGBM is installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from recsys.boosted import BoostedScorer, load_boosted, train_boosted
from recsys.errors import RecsysError
from recsys.features import Number, Relevance
from recsys.plan import SlatePlan
from recsys.recommend import recommend
from tests.recsys.building import Scores, call, catalogue, ids

FEATURES = (Relevance(), Number("price"))


def trained() -> BoostedScorer:
    """Of slates whose middle prices are chosen: what no line can tell."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(3000), rng.uniform(0, 40, 3000)])
    reward = (np.abs(x[:, 1] - 20) < 6).astype(float)
    return train_boosted(FEATURES, x, reward, np.full(300, 10), trees=30)


def test_boosted_trees_learn_what_is_not_linear() -> None:
    items = catalogue({"cheap": {"price": 2}, "middle": {"price": 20}, "dear": {"price": 38}})
    source = Scores({"cheap": 2.0, "dear": 1.0})
    slate = recommend(call(1), SlatePlan(id="home"), items, source, trained()).slate
    assert ids(slate) == ["middle"]


def test_the_same_rows_give_the_same_trees_and_they_read_back() -> None:
    one, other = trained(), trained()
    assert one.digest == other.digest
    again = load_boosted(one.dumps(), FEATURES)
    x = np.random.default_rng(1).random((50, 2)) * [1, 40]
    assert again.predict(x).tobytes() == one.predict(x).tobytes()
    assert again.predict(x[:0]).shape == (0,)


def test_damaged_bytes_are_refused_before_they_are_parsed() -> None:
    data = trained().dumps()
    for broken in (data[:-40], data[:200] + b"x" + data[201:]):
        with pytest.raises(RecsysError, match="fails its checksum"):
            load_boosted(broken, FEATURES)
    with pytest.raises(RecsysError, match="was made with features"):
        load_boosted(data, FEATURES[:1])


def test_lightgbm_is_imported_only_when_a_ranker_needs_it() -> None:
    code = "import recsys.boosted, sys; print('lightgbm' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
