"""The study's off-policy values that are looked at while the log grows, held by betting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from attribution import EvaluationLog, evaluate
from attribution.choices import choice_sample
from attribution.comparisons import TrialPair
from attribution.estimators import ESTIMATORS, Evidence, on_policy
from attribution.sequences import Bounded, betting_p, growth
from attribution.trials import Setting, Shape, Trial
from tests.attribution.worlds import World, heavy, mild
from tests.study.ope import SIX, Draw, fixed, learned, single
from tests.study.promises import ALPHA, LOOKS, Row

FloatArray = npt.NDArray[np.float64]
ASKED = ("ips", "dr")
# What a unit of the log has at most, where it has several rows.
MOST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Growing:
    """Logs of one kind that grow; ``believed`` (k,) are the actions' rewards as supposed before."""

    draw: Callable[[np.random.Generator], Draw]
    believed: FloatArray


def of(world: World, draw: Callable[[np.random.Generator], Draw]) -> Growing:
    """Logs of a world whose rewards were supposed to lie a fifth nearer to one half."""
    return Growing(draw, 0.8 * world.reward + 0.1)


def some(units: int) -> Callable[[np.random.Generator], npt.NDArray[np.intp]]:
    """Units of one row to a dozen, four on average."""
    return lambda rng: np.minimum(1 + rng.poisson(rng.gamma(1, 3, size=units)), MOST_ROWS)


def several(world: World, units: int) -> Callable[[np.random.Generator], Draw]:
    """Units of unequal rows, of which the most that one can have is declared."""
    plain = fixed(world, some(units))

    def draw(rng: np.random.Generator) -> Draw:
        drawn = plain(rng)
        return replace(drawn, log=replace(drawn.log, max_rows=MOST_ROWS))

    return draw


LOW, HIGH, HEAVY = mild(0.08), mild(0.72), heavy(0.86)
CELLS: Mapping[str, Growing] = {
    "mild, low reward, 1 row a unit": of(LOW, fixed(LOW, single(600))),
    "mild, high reward, 150 unequal units": of(HIGH, several(HIGH, 150)),
    "heavy, high reward, 1 row a unit": of(HEAVY, fixed(HEAVY, single(1000))),
    "adaptive, 6 actions, uniform": Growing(
        learned(SIX, np.full(6, 1 / 6), 10, 60, 0.3), np.full(6, 0.4)
    ),
}


def terms_of(drawn: Draw, believed: FloatArray) -> dict[str, tuple[float, Bounded, Bounded]]:
    """By kind of interval the truth, and the terms of its lower and of its negated upper end."""
    log, truth = drawn.log, drawn.value
    at = np.arange(log.n)
    weight = np.asarray(drawn.target)[at, log.action] / log.propensity
    setting = Setting(choice_sample(log), "anytime", ALPHA, 0)
    low, high = believed.min(), believed.max()
    found = {}
    for name in ASKED:
        plain = name == "ips"
        said = np.zeros(log.n) if plain else believed[log.action]
        expected = 0.0 if plain else np.asarray(drawn.target) @ believed
        evidence = Evidence(log.reward, weight, expected, log.reward - said)
        trial = Trial(
            setting,
            name,
            ESTIMATORS[name].terms(evidence),
            gain_range=(0.0, 1.0) if plain else (-high, 1.0 - low),
            base_range=(0.0, 0.0) if plain else (low, high),
            max_weight=log.max_weight,
        )
        found[name] = (truth, *trial.bounded())
        if drawn.logging_value is not None:
            logging = replace(trial, terms=on_policy(evidence), max_weight=1.0, is_logging=True)
            gain = truth - drawn.logging_value
            pair = TrialPair("t", "logging", trial, logging, Shape(0.0, 0.0, np.inf))
            found[f"{name} − logging"] = (gain, *pair.bounded())
    return found


def first(terms: Bounded, units: int) -> Bounded:
    """The terms as they were when so many units had come."""
    steadied = terms.steadied
    return replace(
        terms,
        total=terms.total[:units],
        rows=terms.rows[:units],
        steadied=None if steadied is None else (steadied[0][:units], steadied[1][:units]),
    )


def excluded(truth: float, up: Bounded, down: Bounded) -> bool:
    """Whether either end of the interval excludes the truth."""
    each = ALPHA / 2
    return betting_p(up, truth, each) < each or betting_p(down, -truth, each) < each


def alarmed(truth: float, up: Bounded, down: Bounded) -> bool:
    """Whether any of the looks excluded it.

    Only looks at which all bets together have won enough are looked at closely: the interval bets
    by some of them, so that it excludes no more.
    """
    looks = np.linspace(0, len(up.total), LOOKS + 1).astype(int)[1:]
    rich = np.zeros(LOOKS, dtype=bool)
    for terms, v in ((up, truth), (down, -truth)):
        won = np.cumsum(list(growth(terms)(v)), axis=1)[:, looks - 1]
        rich |= np.exp(won).mean(axis=0) >= 2 / ALPHA
    return any(excluded(truth, first(up, n), first(down, n)) for n in looks[rich])


def judged(drawn: Draw, believed: FloatArray) -> dict[str, tuple[float, float, float]]:
    """By kind of interval its ends and standard error, as `evaluate` gives them."""
    log: EvaluationLog = drawn.log
    against = None if drawn.logging_value is None else "logging"
    report = evaluate(
        log,
        {"t": drawn.target},
        ASKED,
        against=against,
        q_hat=np.broadcast_to(believed, (log.n, log.k)),
        interval="anytime",
    )
    found = {r.estimator: (r.low, r.high, r.se) for r in report.results}
    pairs = {f"{c.estimator} − logging": (c.low, c.high, c.se) for c in report.comparisons_made}
    return found | pairs


def rows(name: str, logs: int, seed: int) -> Iterator[Row]:
    """A row for each kind of interval in a cell."""
    cell, rng = CELLS[name], np.random.default_rng(seed)
    alarms: dict[str, int] = {}
    ends: dict[str, list[tuple[float, float, float, float]]] = {}
    for _ in range(logs):
        drawn = cell.draw(rng)
        last = judged(drawn, cell.believed)
        for which, (truth, up, down) in terms_of(drawn, cell.believed).items():
            alarms[which] = alarms.get(which, 0) + alarmed(truth, up, down)
            mine = ends.setdefault(which, [])
            if which in last and not np.isnan(last[which][0]):
                mine.append((truth, *last[which]))
    for which, found in ends.items():
        truth, low, high, se = np.array(found).T
        yield Row(
            name,
            which,
            len(found) / logs,
            float((low > truth).mean()),
            float((high < truth).mean()),
            float((high - low).sum() / (2 * ndtri(1 - ALPHA / 2) * se).sum()),
            alarms[which] / logs,
        )
