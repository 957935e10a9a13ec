"""What a decision and an update cost, beside raw Vowpal Wabbit and MABWiser in the same run.

10 actions, 20 numeric features, one thread, 2,000 decisions learned beforehand. Every figure is
microseconds of processor time a call, encoding included: the median of seven repetitions, with
their quartile spread. ``pmfs`` is that of a context in a call for all, a sequence of mappings, and
``columns`` in a call for 20,000 given as `policies.Contexts`; ``log`` is that of a decision in a
call that learns 2,000. Raw VW parses ready-made text; our figures start from the context. Run with
``python -m benchmarks.policies``.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

# Set before NumPy is imported, which is when BLAS reads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from vowpalwabbit import Workspace

from policies import (
    Action,
    Contexts,
    Feedback,
    FloatArray,
    Policy,
    apply_floor,
    draw,
    make_policy,
)

MANY = 20_000
K, D, LEARNED, CALLS, REPEATS = 10, 20, 2_000, 300, 7
ACTIONS = tuple(Action(f"a{i}") for i in range(K))
KINDS: Mapping[str, Mapping[str, str]] = {
    "thompson_beta": {},
    "thompson_gaussian": {},
    "lin_ucb": {},
    "lin_ts": {},
    "lin_squarecb": {},
    "logistic_ts": {},
    "adaptive_ucb": {},
    "vw": {"exploration": "squarecb"},
    "mab_nearest": {},
    "mab_clusters": {},
    "mab_tree": {},
}


class BenchRow(NamedTuple):
    """One measurement: microseconds, their spread, and the ratio to the peer's (NaN without)."""

    name: str
    call: str
    microseconds: float
    spread: float
    ratio: float
    peer: str


def measure(call: Callable[[int], object], per_call: int = 1, calls: int = CALLS) -> list[float]:
    """Microseconds for one of ``per_call``, in each of the repetitions."""
    times = []
    for _ in range(REPEATS):
        start = time.thread_time()
        for i in range(calls):
            call(i)
        times.append((time.thread_time() - start) / calls / per_call * 1e6)
    return times


def row(name: str, call: str, times: list[float], peer: str = "", base: float = np.nan) -> BenchRow:
    """Summarise repetitions, against the peer's median ``base``."""
    low, middle, high = statistics.quantiles(times, n=4)
    return BenchRow(name, call, middle, high - low, middle / base, peer)


def run() -> list[BenchRow]:
    """Measure every learning kind and the two peers on one log."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(LEARNED, D))
    drawn = rng.integers(K, size=LEARNED)
    chance = 1.0 / (1.0 + np.exp(-(X * rng.normal(size=(K, D))[drawn]).sum(axis=1)))
    reward = (rng.random(LEARNED) < chance).astype(np.float64)
    contexts = [{f"f{j}": float(v) for j, v in enumerate(x)} for x in X]
    log = [
        Feedback(context, ACTIONS, ACTIONS[a].id, 1.0 / K, float(r))
        for context, a, r in zip(contexts, drawn, reward, strict=True)
    ]
    many = Contexts({f"f{j}": rng.normal(size=MANY) for j in range(D)})
    rows = [*_raw_vw(X, drawn, reward), *_mabwiser(X, drawn, reward)]
    medians = {(r.name, r.call): r.microseconds for r in rows}
    for kind, parameters in KINDS.items():
        policy = make_policy(kind, **parameters)
        policy.learn(log)
        peer = "" if kind.startswith("thompson") else "MABWiser LinUCB"
        peer = "raw VW" if kind == "vw" else peer
        base = medians.get((peer, "pmf"), np.nan)
        rows.append(row(kind, "pmf", _pmf(policy, log), peer, base))
        learn = measure(lambda i, p=policy: p.learn(log[i : i + 1]))  # type: ignore[misc]  # mypy cannot infer a default's type
        rows.append(row(kind, "learn", learn, peer, medians.get((peer, "learn"), np.nan)))
        batch = measure(
            lambda _, p=policy: p.pmfs(contexts, ACTIONS),  # type: ignore[misc]  # as above
            per_call=LEARNED,
            calls=1,
        )
        rows.append(row(kind, "pmfs", batch, peer, base))
        if kind != "vw":
            columns = measure(
                lambda _, p=policy: p.pmfs(many, ACTIONS),  # type: ignore[misc]  # as above
                per_call=MANY,
                calls=1,
            )
            rows.append(row(kind, "columns", columns, peer, base))
        whole = measure(
            lambda _, p=policy: p.learn(log),  # type: ignore[misc]  # as above
            per_call=LEARNED,
            calls=1,
        )
        rows.append(row(kind, "log", whole, peer, medians.get((peer, "learn"), np.nan)))
    pmf: FloatArray = np.full(K, 1.0 / K)
    rows.append(row("floor, draw", "pmf", measure(lambda _: draw(apply_floor(pmf, 0.02), 0.7))))
    return rows


def _pmf(policy: Policy, log: list[Feedback]) -> list[float]:
    return measure(lambda i: policy.pmf(log[i].context, ACTIONS))


def _raw_vw(X: FloatArray, drawn: np.ndarray, reward: FloatArray) -> list[BenchRow]:
    workspace = Workspace("--quiet --cb_explore_adf --squarecb -q ca -b 18")
    shared = ["shared |c " + " ".join(f"f{j}:{v!r}" for j, v in enumerate(x)) for x in X.tolist()]
    lines = [f"|a id={action.id}" for action in ACTIONS]
    examples = []
    for text, a, r in zip(shared, drawn, reward, strict=True):
        labelled = list(lines)
        labelled[a] = f"0:{-r}:{1 / K} {lines[a]}"
        examples.append([text, *labelled])
        workspace.learn(examples[-1])
    predict = measure(lambda i: workspace.predict([shared[i], *lines]))
    return [
        row("raw VW", "pmf", predict),
        row("raw VW", "learn", measure(lambda i: workspace.learn(examples[i]))),
    ]


def _mabwiser(X: FloatArray, drawn: np.ndarray, reward: FloatArray) -> list[BenchRow]:
    mab = MAB([action.id for action in ACTIONS], LearningPolicy.LinUCB(alpha=1.0))
    decisions = [ACTIONS[a].id for a in drawn]
    mab.fit(decisions, reward, X)
    calls = CALLS // 10
    return [
        row("MABWiser LinUCB", "pmf", measure(lambda i: mab.predict(X[i : i + 1]), calls=calls)),
        row(
            "MABWiser LinUCB",
            "learn",
            measure(
                lambda i: mab.partial_fit(decisions[i : i + 1], reward[i : i + 1], X[i : i + 1]),
                calls=calls,
            ),
        ),
    ]


def main() -> None:
    """Print the table."""
    print(f"{K} actions, {D} features, {LEARNED} decisions learned; µs, median of {REPEATS}")
    print(f"{'':18}{'call':8}{'µs':>9}{'± spread':>10}{'ratio':>8}  to")
    for r in run():
        ratio = "" if np.isnan(r.ratio) else f"{r.ratio:.2f}"
        print(f"{r.name:18}{r.call:8}{r.microseconds:9.1f}{r.spread:10.1f}{ratio:>8}  {r.peer}")


if __name__ == "__main__":
    main()
