"""What policies earn while they learn, beside Vowpal Wabbit and MABWiser in the same run.

Classification data played as a bandit: the reward is 1 for the action that names the row's class,
and only the reward of the action drawn is told. One pass over permuted rows, features as they come,
one setting for all data, every pmf mixed with the uniform one so that no action is below .01 / K.
Full-information ridge is told every row's class: it shows what a linear model could earn.

    python -m benchmarks.progressive [--quick] [--data digits mushroom letter] [--rounds N]

Ten permutations with seeds 0 to 9, or two with ``--quick``; the first 10,000 rows of each. Digits,
wine, cancer and iris come with scikit-learn; in ``lines`` the class is the largest of five linear
functions of attributes whose scales span seven decades, and in ``nothing`` it has to do with none
of them; mushroom and letter are read from the folder ``EVENHAND_SHARED_DATA``, by
default ``../shared/data``. The µs are processor time of one decision and one update, encoding and
floor included. It takes most of an hour, so ``make bench`` leaves it out.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

# Set before NumPy and matplotlib, which MABWiser imports, are.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from vowpalwabbit import Workspace

from policies import (
    DEFAULT_KIND,
    Action,
    Feedback,
    FloatArray,
    apply_floor,
    draw,
    make_policy,
    normalise,
)

FLOOR = 0.01
ROUNDS = 10_000
DATA = ("digits", "mushroom", "letter", "wine", "cancer", "iris", "lines", "nothing")
BUNDLED = {
    "digits": load_digits,
    "wine": load_wine,
    "cancer": load_breast_cancer,
    "iris": load_iris,
}
SHARED = Path(__file__).parents[2] / "shared" / "data"


class Data(NamedTuple):
    """Rows X (n, d) and their classes y (n,), 0 to K - 1."""

    name: str
    X: FloatArray
    y: np.ndarray


class Learner(Protocol):
    """Plays rows by their index."""

    def pmf(self, row: int) -> FloatArray:
        """(K,) before the floor."""
        ...

    def learn(self, row: int, action: int, propensity: float, reward: float) -> None:
        """Take the reward of the action drawn."""
        ...


class Own:
    """A policy of this package."""

    def __init__(self, data: Data, kind: str, parameters: Mapping[str, object]) -> None:
        self._policy = make_policy(kind, **parameters)
        self._actions = tuple(Action(f"a{a}") for a in range(data.y.max() + 1))
        names = [f"f{j}" for j in range(data.X.shape[1])]
        self._contexts = [dict(zip(names, x, strict=True)) for x in data.X.tolist()]

    def pmf(self, row: int) -> FloatArray:
        return self._policy.pmf(self._contexts[row], self._actions)

    def learn(self, row: int, action: int, propensity: float, reward: float) -> None:
        drawn = self._actions[action].id
        feedback = Feedback(self._contexts[row], self._actions, drawn, propensity, reward)
        self._policy.learn([feedback])


class RawVW:
    """Vowpal Wabbit from ready-made text, at its defaults but for the crossing of features."""

    def __init__(self, data: Data, explorer: str) -> None:
        self._workspace = Workspace(f"--quiet --cb_explore_adf {explorer} -q ca")
        self._lines = [f"|a id={a}" for a in range(data.y.max() + 1)]
        self._shared = [
            "shared |c " + " ".join(f"f{j}:{v:.6g}" for j, v in enumerate(x) if v)
            for x in data.X.tolist()
        ]

    def pmf(self, row: int) -> FloatArray:
        return normalise(np.array(self._workspace.predict([self._shared[row], *self._lines])))

    def learn(self, row: int, action: int, propensity: float, reward: float) -> None:
        lines = list(self._lines)
        lines[action] = f"0:{-reward}:{propensity} {lines[action]}"
        self._workspace.learn([self._shared[row], *lines])


class MABWiser:
    """MABWiser's LinUCB with α = 1, which says what it would choose and no pmf."""

    def __init__(self, data: Data) -> None:
        self._X = data.X
        self._k = int(data.y.max()) + 1
        self._mab = MAB(list(range(self._k)), LearningPolicy.LinUCB(alpha=1.0))
        self._fitted = False

    def pmf(self, row: int) -> FloatArray:
        if not self._fitted:
            return np.full(self._k, 1.0 / self._k)
        pmf = np.zeros(self._k)
        pmf[self._mab.predict(self._X[row : row + 1])] = 1.0
        return pmf

    def learn(self, row: int, action: int, propensity: float, reward: float) -> None:  # noqa: ARG002
        learn = self._mab.partial_fit if self._fitted else self._mab.fit
        learn([action], [reward], self._X[row : row + 1])
        self._fitted = True


class FullInformation:
    """Ridge regression of every action's reward, λ = 1, told after each row what it was of."""

    def __init__(self, data: Data) -> None:
        scaled = data.X / np.maximum(np.abs(data.X).max(axis=0), 1e-12)
        self._X = np.column_stack([np.ones(len(scaled)), scaled])
        self._y, k = data.y, int(data.y.max()) + 1
        self._covariance = np.eye(self._X.shape[1])
        self._coefficients = np.zeros((self._X.shape[1], k))

    def pmf(self, row: int) -> FloatArray:
        predicted = self._X[row] @ self._coefficients
        return normalise((predicted == predicted.max()).astype(np.float64))

    def learn(self, row: int, action: int, propensity: float, reward: float) -> None:  # noqa: ARG002
        x = self._X[row]
        step = self._covariance @ x
        gain = 1.0 + float(x @ step)
        error = -(x @ self._coefficients)
        error[self._y[row]] += 1.0
        self._coefficients += step[:, None] * (error / gain)
        self._covariance -= step[:, None] * (step / gain)


LEARNERS: Mapping[str, Callable[[Data], Learner]] = {
    "uniform": lambda data: Own(data, "uniform", {}),
    "VW squarecb": lambda data: RawVW(data, "--squarecb"),
    "VW cover 5": lambda data: RawVW(data, "--cover 5"),
    "lin_squarecb": lambda data: Own(data, "lin_squarecb", {}),
    "lin_ucb": lambda data: Own(data, "lin_ucb", {}),
    "adaptive_ucb, the default": lambda data: Own(data, DEFAULT_KIND, {}),
    "full-information ridge": FullInformation,
    "MABWiser LinUCB": MABWiser,
}


class Run(NamedTuple):
    """One pass: mean reward, and µs a decision and an update."""

    reward: float
    decision: float
    update: float


def play(learner: Learner, y: np.ndarray, seed: int) -> Run:
    """One pass over rows in the order they have."""
    draws = np.random.default_rng(seed + 1_000).random(len(y))
    earned = deciding = updating = 0.0
    for row, u in enumerate(draws.tolist()):
        start = time.process_time()
        pmf = apply_floor(learner.pmf(row), FLOOR)
        middle = time.process_time()
        action = draw(pmf, u)
        reward = float(action == y[row])
        before = time.process_time()
        learner.learn(row, action, float(pmf[action]), reward)
        updating += time.process_time() - before
        deciding += middle - start
        earned += reward
    return Run(earned / len(y), deciding / len(y) * 1e6, updating / len(y) * 1e6)


def read(name: str) -> Data:
    """One data set, whole."""
    rng = np.random.default_rng(5)
    if name in BUNDLED:
        X, y = BUNDLED[name](return_X_y=True)
    elif name == "lines":
        X = rng.normal(size=(4_000, 10))
        y = (X @ rng.normal(size=(10, 5))).argmax(axis=1)
        X = X * 10.0 ** rng.uniform(-3, 4, 10)
    elif name == "nothing":
        X, y = rng.normal(size=(3_000, 20)), rng.choice(5, 3_000, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    else:
        folder = Path(os.environ.get("EVENHAND_SHARED_DATA", SHARED))
        with np.load(folder / "bandits" / f"{name}.npz", allow_pickle=False) as arrays:
            X, y = arrays["X"], arrays["y"]
    return Data(name, np.asarray(X, dtype=np.float64), y)


def permuted(data: Data, seed: int, rounds: int) -> Data:
    """The first rounds of a seeded permutation."""
    order = np.random.default_rng(seed).permutation(len(data.y))[:rounds]
    return Data(data.name, data.X[order], data.y[order])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Progressive mean reward, one pass.")
    parser.add_argument("--quick", action="store_true", help="two permutations instead of ten")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA, help="all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rows of each permutation")
    given = parser.parse_args(arguments)
    seeds = range(2 if given.quick else 10)
    print(f"Mean reward over {len(seeds)} permutations ± their standard deviation; µs a call")
    for name in given.data:
        data = read(name)
        k = int(data.y.max()) + 1
        print(f"\n{name}: {min(len(data.y), given.rounds)} rounds, {k} actions")
        print(f"{'':34}{'reward':>8}{'±':>7}{'decision':>10}{'update':>9}")
        for title, make in LEARNERS.items():
            runs = []
            for seed in seeds:
                rows = permuted(data, seed, given.rounds)
                runs.append(play(make(rows), rows.y, seed))
            reward, decision, update = np.mean(runs, axis=0)
            spread = np.std([run.reward for run in runs], ddof=1)
            print(f"{title:34}{reward:8.3f}{spread:7.3f}{decision:10.0f}{update:9.0f}", flush=True)


if __name__ == "__main__":
    main()
