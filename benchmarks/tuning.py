"""What tuning on a log is worth: the tuned choice beside the default, on data that neither saw.

Classification data played as a bandit. The first third of a permutation is logged uniformly and
given to `engine.tuning.tune`; the winner and the default both learn from it, then play the rest,
one pass, every pmf mixed with the uniform one so that no action is below .01 / K.

    python -m benchmarks.tuning [--data digits …] [--seeds 3]
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from engine.tuning import DEFAULT, Choice, tune
from policies import Action, Context, Feedback, FloatArray, apply_floor, draw

FLOOR = 0.01
ROWS = 10_000
SHARED = Path(__file__).parents[2] / "shared" / "data"
BUNDLED = {
    "digits": load_digits,
    "wine": load_wine,
    "cancer": load_breast_cancer,
    "iris": load_iris,
}
DATA = (*BUNDLED, "mushroom", "letter", "lines", "nothing")


def read(name: str) -> tuple[FloatArray, np.ndarray]:
    """Rows (n, d) and their classes (n,), 0 to K − 1."""
    rng = np.random.default_rng(5)
    if name in BUNDLED:
        X, y = BUNDLED[name](return_X_y=True)
    elif name == "lines":
        X = rng.normal(size=(4_000, 10))
        y = (X @ rng.normal(size=(10, 5))).argmax(axis=1)
    elif name == "nothing":
        X, y = rng.normal(size=(3_000, 20)), rng.choice(5, 3_000, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    else:
        folder = Path(os.environ.get("EVENHAND_SHARED_DATA", SHARED))
        with np.load(folder / "bandits" / f"{name}.npz", allow_pickle=False) as arrays:
            X, y = arrays["X"].astype(float), arrays["y"]
    return X, np.unique(y, return_inverse=True)[1]


def logged(
    contexts: Sequence[Context], y: np.ndarray, actions: tuple[Action, ...], seed: int
) -> list[Feedback]:
    """The rows as a uniform policy logs them."""
    rng = np.random.default_rng([seed, 7])
    drawn = rng.integers(len(actions), size=len(y))
    p = 1 / len(actions)
    return [
        Feedback(context, actions, actions[a].id, p, float(a == label))
        for context, a, label in zip(contexts, drawn, y, strict=True)
    ]


def played(
    choice: Choice,
    log: Sequence[Feedback],
    contexts: Sequence[Context],
    y: np.ndarray,
    actions: tuple[Action, ...],
    seed: int,
) -> float:
    """The mean reward of a choice over the rest, having learned from the log."""
    rng = np.random.default_rng([seed, 9])
    policy = choice.made()
    policy.learn(log)
    earned = 0.0
    for context, label in zip(contexts, y, strict=True):
        pmf = apply_floor(policy.pmf(context, actions), FLOOR)
        a = draw(pmf, rng.random())
        reward = float(a == label)
        earned += reward
        policy.learn([Feedback(context, actions, actions[a].id, float(pmf[a]), reward)])
    return earned / len(y)


def main() -> None:
    """Print a row for each data set and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in options.data:
        X, labels = read(name)
        gains = []
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(len(labels))[:ROWS]
            names = [f"f{j}" for j in range(X.shape[1])]
            contexts = [dict(zip(names, x, strict=True)) for x in X[order].tolist()]
            y = labels[order]
            actions = tuple(Action(f"a{a}") for a in range(int(labels.max()) + 1))
            third = len(y) // 3
            log = logged(contexts[:third], y[:third], actions, seed)
            began = time.process_time()
            try:
                winner = tune(log, floor=FLOOR, seed=seed).winner
            except ValueError as error:
                raise SystemExit(str(error)) from error
            except Exception as error:  # noqa: BLE001  too few rows is an answer here
                print(f"{name} {seed}: {error}", flush=True)
                winner = DEFAULT
            spent = time.process_time() - began
            rest = (contexts[third:], y[third:], actions, seed)
            base = played(DEFAULT, log, *rest)
            ours = base if winner == DEFAULT else played(winner, log, *rest)
            gains.append(ours - base)
            print(
                f"{name} {seed}: default {base:.4f}, tuned {ours:.4f} ({ours - base:+.4f}), "
                f"{spent:.0f} s: {winner.name}",
                flush=True,
            )
        print(f"{name}: mean gain {np.mean(gains):+.4f}, least {min(gains):+.4f}", flush=True)


if __name__ == "__main__":
    main()
