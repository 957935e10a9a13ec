"""The off-policy half of the study: the intervals of values and of paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from attribution import EvaluationLog, evaluate
from tests.attribution.worlds import World, heavy, mild
from tests.study.promises import Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Draw:
    """One simulated log with its target and the truth."""

    log: EvaluationLog
    target: FloatArray
    value: float
    logging_value: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """Logs of one kind, and what is promised of their intervals.

    ``answered`` is the least share of logs that must get a value; ``width`` the largest median
    width over that of the delta interval.
    """

    draw: Callable[[np.random.Generator], Draw]
    estimators: tuple[str, ...] = ("ips", "snips", "dr")
    answered: float = 0.99
    width: float = 1.3


@dataclass(slots=True)
class Tally:
    """What became of one estimator's intervals in a cell."""

    below: int = 0
    above: int = 0
    widths: list[float] = field(default_factory=list)
    deltas: list[float] = field(default_factory=list)

    def add(self, low: float, high: float, delta: float, truth: float) -> None:
        """Count one interval, with the delta interval's width beside it."""
        self.below += high < truth
        self.above += low > truth
        self.widths.append(high - low)
        self.deltas.append(delta)

    @property
    def n(self) -> int:
        """Intervals."""
        return len(self.widths)

    @property
    def ratio(self) -> float:
        """Mean width over the delta interval's."""
        return float(np.sum(self.widths) / np.sum(self.deltas)) if self.n else float("nan")


@dataclass(slots=True)
class Outcome:
    """What became of a cell: logs, how many were answered, a tally for each kind of interval."""

    logs: int
    answered: int
    tallies: dict[str, Tally]


def run(cell: Cell, logs: int, seed: int) -> Outcome:
    """Evaluate ``logs`` logs of a cell with the interval that `evaluate` chooses by itself."""
    rng = np.random.default_rng(seed)
    tallies: dict[str, Tally] = {}
    answered = 0
    for _ in range(logs):
        drawn = cell.draw(rng)
        paired = drawn.logging_value is not None
        report = evaluate(
            drawn.log, {"t": drawn.target}, cell.estimators, against="logging" if paired else None
        )
        if report.diagnostics["t"].verdict == "not_estimable":
            continue
        answered += 1
        reach = 2 * float(stdtrit(drawn.log.n_units - 1, 0.975))
        for row in report.results:
            tally = tallies.setdefault(row.estimator, Tally())
            tally.add(row.low, row.high, reach * row.se, drawn.value)
        for pair in report.comparisons_made:
            tally = tallies.setdefault(f"{pair.estimator} − logging", Tally())
            gain = drawn.value - (drawn.logging_value or 0.0)
            tally.add(pair.low, pair.high, reach * pair.se, gain)
    return Outcome(logs, answered, tallies)


# What logs are drawn ------------------------------------------------------------------------------


def single(count: int) -> Callable[[np.random.Generator], IntArray]:
    """Units of one row."""
    return lambda rng: np.ones(count, dtype=np.intp)


def unequal(units: int) -> Callable[[np.random.Generator], IntArray]:
    """Units of one row to some dozens, nine on average."""
    return lambda rng: (1 + rng.poisson(rng.gamma(1, 8, size=units))).astype(np.intp)


def fixed(
    world: World,
    rows: Callable[[np.random.Generator], IntArray],
    *,
    sticky: bool = False,
    exact: bool = False,
) -> Callable[[np.random.Generator], Draw]:
    """A logging policy that does not learn; units' rewards depend on their taste.

    ``exact`` declares the largest weight as it is, and not half again as large.
    """

    def draw(rng: np.random.Generator) -> Draw:
        log = world.log(rng, rows(rng), taste=0.05, sticky=sticky)
        if exact:
            log = replace(log, max_weight=world.max_weight)
        return Draw(log, world.target_for(log), world.value, world.logging_value)

    return draw


def delayed(world: World, rows: int) -> Callable[[np.random.Generator], Draw]:
    """Outcomes that arrive late, the better the later; rows that have not matured are left out.

    The reward is known a window after its decision whatever it is, so that the rows that count
    are chosen by their age and not by their outcome.
    """

    def draw(rng: np.random.Generator) -> Draw:
        log = world.log(rng, np.ones(rows, dtype=np.intp), taste=0.05)
        decided = rng.uniform(0, 30, rows)
        arrives = decided + np.where(log.reward > 0, rng.exponential(2, rows), 0.1)
        window, today = 7.0, 30.0
        counted = np.where(arrives <= decided + window, log.reward, 0.0)
        ripe = decided + window <= today
        matured = EvaluationLog(
            log.actions,
            log.action[ripe],
            counted[ripe],
            log.propensity[ripe],
            reward_range=(0, 1),
            max_weight=log.max_weight,
        )
        in_time = 1 - np.exp(-window / 2)
        return Draw(
            matured,
            world.target_for(matured),
            world.value * in_time,
            world.logging_value * in_time,
        )

    return draw


def learned(
    reward: FloatArray, target: FloatArray, batches: int, size: int, explore: float
) -> Callable[[np.random.Generator], Draw]:
    """An ε-greedy policy that is fitted anew before each batch to what came before."""
    k = len(reward)

    def draw(rng: np.random.Generator) -> Draw:
        count, total = np.zeros(k), np.zeros(k)
        actions, rewards, pmfs = [], [], []
        for _ in range(batches):
            pmf = np.full(k, explore / k)
            pmf[int(((total + 0.5) / (count + 1)).argmax())] += 1 - explore
            action = rng.choice(k, p=pmf, size=size)
            got = (rng.random(size) < reward[action]).astype(float)
            count += np.bincount(action, minlength=k)
            total += np.bincount(action, weights=got, minlength=k)
            actions.append(action)
            rewards.append(got)
            pmfs.append(np.broadcast_to(pmf, (size, k)))
        n = batches * size
        action, pmf = np.concatenate(actions).astype(np.intp), np.concatenate(pmfs)
        log = EvaluationLog(
            tuple(range(k)),
            action,
            np.concatenate(rewards),
            pmf[np.arange(n), action],
            pmf=pmf,
            time=np.datetime64("2026-01-01", "us") + np.arange(n).astype("timedelta64[m]"),
            logger=np.arange(n) // size,
            reward_range=(0, 1),
            max_weight=k / explore,
        )
        return Draw(log, np.broadcast_to(target, (n, k)), float(target @ reward))

    return draw


def mildly(draw: Callable[[np.random.Generator], Draw]) -> Cell:
    """A cell that must be answered nearly always, at nearly the width of the delta interval."""
    return Cell(draw, answered=0.99, width=1.3)


def heavily(draw: Callable[[np.random.Generator], Draw]) -> Cell:
    """A cell of heavy weights, or of few draws: an effective sample of a few units."""
    return Cell(draw, answered=0.9, width=2.0)


def adaptively(draw: Callable[[np.random.Generator], Draw]) -> Cell:
    """A cell of logs that learned, with the estimator that allows for it."""
    return Cell(draw, estimators=("aw_aipw",))


TWO = np.array([0.45, 0.5])
SIX = np.array([0.3, 0.32, 0.34, 0.36, 0.38, 0.4])
CELLS: Mapping[str, Cell] = {
    "mild, low reward, 1 row a unit": mildly(fixed(mild(0.08), single(1000))),
    "mild, high reward, 1 row a unit": mildly(fixed(mild(0.72), single(1000))),
    "mild, low reward, 200 unequal units": mildly(fixed(mild(0.08), unequal(200))),
    "mild, high reward, 200 unequal units": mildly(fixed(mild(0.72), unequal(200))),
    "mild, low reward, 50 unequal units": mildly(fixed(mild(0.08), unequal(50))),
    "mild, high reward, 50 unequal units": mildly(fixed(mild(0.72), unequal(50))),
    "mild, delayed outcomes": mildly(delayed(mild(0.3), 1300)),
    "sticky draws, 200 unequal units": heavily(fixed(mild(0.72), unequal(200), sticky=True)),
    "sticky draws, 50 unequal units": heavily(fixed(mild(0.72), unequal(50), sticky=True)),
    "heavy, low reward, 1 row a unit": heavily(fixed(heavy(0.06), single(1000))),
    "heavy, high reward, 1 row a unit": heavily(fixed(heavy(0.86), single(1000))),
    "heavy, high reward, 200 unequal units": heavily(fixed(heavy(0.86), unequal(200))),
    "adaptive, 2 actions, the worse one": adaptively(
        learned(TWO, np.array([1.0, 0.0]), 20, 100, 0.2)
    ),
    "adaptive, 6 actions, the worst one": adaptively(learned(SIX, np.eye(6)[0], 20, 200, 0.3)),
    "adaptive, 6 actions, uniform": adaptively(learned(SIX, np.full(6, 1 / 6), 20, 200, 0.3)),
    "sticky draws, 50 unequal units, largest weight exact": heavily(
        fixed(mild(0.72), unequal(50), sticky=True, exact=True)
    ),
}


def rows(name: str, logs: int, seed: int) -> Iterator[Row]:
    """A row of the table for each kind of interval in a cell."""
    cell = CELLS[name]
    outcome = run(cell, logs, seed)
    for which, tally in outcome.tallies.items():
        yield Row(
            name,
            which,
            outcome.answered / outcome.logs,
            tally.above / tally.n,
            tally.below / tally.n,
            tally.ratio,
            least_answered=cell.answered,
            widest=cell.width,
        )
