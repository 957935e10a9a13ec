"""A ranker of boosted trees: the optional extra ``evenhand[lightgbm]``.

This is the one importer of LightGBM, when a ranker is trained or first predicts. Models are kept as
the text that LightGBM writes, with a checksum that is verified before the text is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from recsys import archive
from recsys.errors import RecsysError
from recsys.features import Feature

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_SETTINGS = {
    "objective": "lambdarank",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "verbosity": -1,
    # One thread and one order of rows: the same rows give the same trees.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
}


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["lightgbm"]
    features: list[str]
    text: str


@dataclass(frozen=True, eq=False)
class BoostedScorer:
    """A trained ranker; start at `train_boosted` or `load_boosted`.

    Parameters
    ----------
    text
        The model as LightGBM writes it.
    """

    features: tuple[Feature, ...]
    text: str

    @cached_property
    def _booster(self) -> Any:
        return _lightgbm().Booster(model_str=self.text)

    def predict(self, x: FloatArray) -> FloatArray:
        """See `recsys.scoring.Scorer.predict`; scores rank within one set of candidates."""
        if len(x) == 0:
            return np.zeros(0)
        return np.asarray(self._booster.predict(x, num_threads=1), np.float64)

    def dumps(self) -> bytes:
        """Its bytes; features are kept by name."""
        state = _State("lightgbm", [feature.name for feature in self.features], self.text)
        return archive.pack(msgspec.to_builtins(state), {})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        return hashlib.sha256(self.dumps()).hexdigest()


def train_boosted(
    features: Sequence[Feature], x: FloatArray, reward: FloatArray, slates: IntArray, *, trees: int
) -> BoostedScorer:
    """A ranker that puts the items of each slate in the order of their rewards.

    Parameters
    ----------
    x
        (n, f) features, NaN where unknown.
    reward
        (n,) grades, whole numbers from 0 to 30.
    slates
        How many of the n rows, in order, each slate has.

    Raises
    ------
    RecsysError
        If shapes differ, rewards are no grades, or LightGBM is not installed.
    """
    if x.shape != (len(reward), len(features)) or int(slates.sum()) != len(reward) or trees < 1:
        raise RecsysError(
            f"x has shape {x.shape}, reward {reward.shape}, slates hold {int(slates.sum())} rows "
            f"and trees is {trees}. Give (n, {len(features)}), (n,), n rows, and a tree or more."
        )
    if not ((reward >= 0) & (reward <= 30) & (reward == np.rint(reward))).all():
        raise RecsysError("reward holds what is no whole number from 0 to 30. Grade the rewards.")
    lightgbm = _lightgbm()
    names = [f"f{i}" for i in range(len(features))]
    data = lightgbm.Dataset(x, reward, group=slates, feature_name=names, free_raw_data=False)
    booster = lightgbm.train(_SETTINGS, data, trees)
    return BoostedScorer(tuple(features), booster.model_to_string())


def load_boosted(data: bytes, features: Sequence[Feature]) -> BoostedScorer:
    """Read a ranker's bytes.

    Raises
    ------
    RecsysError
        If they were truncated or altered, are no such ranker, or of other features.
    """
    values, _ = archive.unpack(data)
    try:
        state = msgspec.convert(values, _State)
    except msgspec.ValidationError as error:
        raise RecsysError(f"scorer.values: {error}. Train anew.") from error
    names = [feature.name for feature in features]
    if names != state.features:
        raise RecsysError(
            f"the scorer was made with features {state.features} and is given {names}. Give the "
            "same, in the same order, or train anew."
        )
    return BoostedScorer(tuple(features), state.text)


def _lightgbm() -> Any:
    try:
        import lightgbm  # noqa: PLC0415  # optional, and slow to import
    except ImportError as error:
        raise RecsysError(
            "LightGBM is not installed, which this scorer needs: pip install 'evenhand[lightgbm]'."
        ) from error
    return lightgbm
