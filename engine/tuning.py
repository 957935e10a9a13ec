"""Choosing a policy's kind and parameters on a log, with a learner in the loop.

What exploring is worth shows only where a learner acts on what it found out: the off-policy value
of a frozen policy favours greed. So each choice lives in **worlds fitted to the log**: contexts as
they were logged, and for an action that was not drawn the reward of a logged row near by. It begins
with what it learns from one part of the rows and goes on deciding about the others. The winner and
the default are then played back on later rows that no world was made of, by rejection: there their
values are unbiased, and have intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import f_oneway, norm

from engine.errors import ReportError
from engine.logsource import LogSource
from engine.reports import feedback_of, matured_rows
from experiments import UnitRange
from policies import DEFAULT_KIND, Action, Feedback, Policy, apply_floor, draw, make_policy

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Advance = Callable[[int], None]

LEAST_ROWS = 200
_MOST_ROWS = 4_000
_MOST_LIVED = 1_000
"""Rows that a life decides on, at most."""
_LATER_SHARE = 0.25
_LIVES = 4
_FINALISTS = 4
_NEIGHBOURS = (1, 3, 10, 30)
_MOST_TEXTS = 50
# A choice must be better than the default by this many of its standard errors, and by this share of
# the rewards' deviation: it was the best of several.
_SURE = 3.0
_WORTH = 0.02
# A world that may misstate what the default earns by more of the rewards' deviation is no judge.
_BLUR = 0.35


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind with parameters, as a workspace declares them."""

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is shown: the kind, and what differs from the kind's defaults."""
        told = ", ".join(f"{key}: {value}" for key, value in self.parameters.items())
        return f"{self.kind} ({told})" if told else self.kind

    def made(self) -> Policy:
        """The policy, before it has learned anything."""
        return make_policy(self.kind, **self.parameters)


DEFAULT = Choice(DEFAULT_KIND)
"""What needs no tuning: a choice must beat it."""

_FAMILIES = (
    Choice(DEFAULT_KIND, {"alpha": 0.5}),
    Choice(DEFAULT_KIND, {"alpha": 3.0}),
    Choice("lin_ucb", {"alpha": 0.5, "fourier": 256}),
    Choice("lin_ucb", {"alpha": 1.5, "fourier": 256}),
    Choice("lin_ucb", {"alpha": 0.25}),
    Choice("lin_ucb", {"alpha": 1.0}),
    Choice("lin_ts", {"alpha": 0.5}),
    Choice("lin_greedy"),
    Choice("lin_squarecb"),
    Choice("thompson_gaussian"),
)


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice's mean reward in the fitted worlds, and its gain over the default there.

    ``lives`` counts the worlds it lived in; those that did badly in the first live no more.
    """

    choice: Choice
    mean: float
    gain: float
    se: float
    lives: int


@dataclass(frozen=True, slots=True)
class Played:
    """A value on later rows: doubly robust, of the policy as it learned from them."""

    mean: float
    low: float
    high: float
    rows: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """The winner, all that was tried, and what later rows say of winner and default.

    ``difference`` is (mean, low, high) of the winner less the default on the same rows.
    """

    winner: Choice
    tried: tuple[Tried, ...]
    played: Played
    default_played: Played
    difference: tuple[float, float, float]


def tune(
    rows: Sequence[Feedback],
    *,
    floor: float,
    default: Choice = DEFAULT,
    alpha: float = 0.05,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> Tuned:
    """The choice to make, from a randomised log in the order of time.

    The default wins unless another is better by three standard errors of their difference, in
    worlds that tell what the default earns.
    Family and exploration are searched first, regularisation and features around the best of them.

    The same rows and seed give the same choice.

    Parameters
    ----------
    rows
        At least 200, each drawn with a known propensity.
    floor
        The exploration floor that the policy will serve with.
    alpha
        One minus the level of the intervals on later rows, of each.

    Raises
    ------
    ReportError
        If there are too few rows.
    """
    if len(rows) < LEAST_ROWS:
        raise ReportError(
            f"{len(rows):,} randomised decisions are too few to tune on; log {LEAST_ROWS:,}, or "
            "take the default, which needs no tuning"
        )
    cut = len(rows) - int(len(rows) * _LATER_SHARE)
    search, later = list(rows[:cut][-_MOST_ROWS:]), list(rows[cut:][-_MOST_ROWS:])
    world = fitted(search, seed)
    lives: dict[str, list[FloatArray]] = {}

    def live(choice: Choice, count: int) -> FloatArray:
        known = lives.setdefault(choice.name, [])
        while len(known) < count:
            known.append(_life(choice, world, floor, len(known)))
            advance(1)
        return np.concatenate(known[:count])

    families = [default, *(choice for choice in _FAMILIES if choice != default)]
    finalists = _best(families, live, _FINALISTS)
    around = _around(finalists[0], search)
    finalists += _best(around, live, 2)
    tried = []
    for choice in [*families, *around]:
        count = _LIVES if choice in finalists else 1
        mine = live(choice, count)
        gain = mine - live(default, count)
        se = float(gain.std(ddof=1)) / math.sqrt(len(gain))
        tried.append(Tried(choice, float(mine.mean()), float(gain.mean()), se, count))
    tried.sort(key=lambda t: (-t.lives, -t.gain))
    deviation = float(np.std([row.reward for row in search]))
    best = tried[0]
    blurred = misstated(default, world, floor) > _BLUR * deviation
    better = best.gain > max(_SURE * best.se, _WORTH * deviation)
    winner = best.choice if better and not blurred else default
    ours, accepted = played(winner, search, later, floor, seed)
    theirs, accepted_too = played(default, search, later, floor, seed)
    reach = float(norm.ppf(1 - alpha / 2))
    return Tuned(
        winner,
        tuple(tried),
        _value(ours, accepted, reach),
        _value(theirs, accepted_too, reach),
        _mean(ours - theirs, reach),
    )


def misstated(choice: Choice, world: World, floor: float) -> float:
    """How far what a choice earns in a world may be from what it earns in truth, at 95 %.

    Each half of the rows is decided by a policy that learned from the other and then stands still:
    by propensity its value there is known without bias, and in the world exactly. A world is a
    blurred likeness, the more so the more actions there are, and blur flatters what learns little.
    """
    rows = world.rows
    gaps = np.empty(len(rows))
    for half in (0, 1):
        policy = choice.made()
        policy.learn([row for place, row in enumerate(rows) if place % 2 == half])
        for place in range(1 - half, len(rows), 2):
            row, actions = rows[place], world.known(place)
            ids = [action.id for action in actions]
            if row.action not in ids:
                gaps[place] = 0.0
                continue
            pmf = apply_floor(policy.pmf(row.context, actions), floor)
            means = np.array([world.mean(place, id_) for id_ in ids])
            drawn = ids.index(row.action)
            # The world's own mean of what was not drawn is a control for the truth as well.
            gaps[place] = float(pmf[drawn]) / row.propensity * (row.reward - means[drawn])
    se = float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return abs(float(gaps.mean())) + float(norm.ppf(0.95)) * se


def _best(
    choices: Sequence[Choice], live: Callable[[Choice, int], FloatArray], count: int
) -> list[Choice]:
    """The choices that did best in the first of the worlds."""
    return sorted(choices, key=lambda choice: -float(live(choice, 1).mean()))[:count]


def _around(best: Choice, rows: Sequence[Feedback]) -> list[Choice]:
    """The best choice with more and less regularisation, and with the attributes that matter."""
    if best.kind != DEFAULT_KIND and not best.kind.startswith("lin_"):
        return []
    made = [replace(best, parameters={**best.parameters, "l2": value}) for value in (0.1, 10.0)]
    matter = telling(rows)
    if matter and len(matter) < len({name for row in rows for name in row.context}):
        made.append(replace(best, parameters={**best.parameters, "features": matter}))
    return made


def telling(rows: Sequence[Feedback]) -> list[str]:
    """The attributes by which the reward of some action differs, one at a time.

    Each is cut into at most four groups; a one-way analysis of variance of each action's rewards by
    these, at 5 % over all attributes and actions (Bonferroni).
    """
    names = sorted({name for row in rows for name in row.context})
    by_action: dict[str, list[Feedback]] = {}
    for row in rows:
        by_action.setdefault(row.action, []).append(row)
    found = []
    for name in names:
        least = 1.0
        for some in by_action.values():
            rewards = np.array([row.reward for row in some])
            codes = _grouped([row.context.get(name) for row in some])
            groups = [rewards[codes == code] for code in np.unique(codes)]
            groups = [group for group in groups if len(group) > 2]
            if len(groups) > 1 and any(np.ptp(group) > 0 for group in groups):
                least = min(least, float(f_oneway(*groups).pvalue))
        if least < 0.05 / (len(names) * len(by_action)):
            found.append(name)
    return found


def _grouped(values: Sequence[Any]) -> IntArray:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        return np.searchsorted(np.quantile(numbers, [0.25, 0.5, 0.75]), numbers)
    texts = [str(value) for value in values]
    common = sorted(set(texts), key=lambda text: (-texts.count(text), text))[:3]
    return np.array([common.index(t) if t in common else 3 for t in texts], dtype=np.intp)


def tune_slot(
    source: LogSource,
    surface: str,
    slot: str,
    *,
    floor: float | None = None,
    units: UnitRange | None = None,
    as_of_us: int,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> dict[str, Any]:
    """What to declare for a slot, from its log: JSON data.

    ``policies`` is the part of a workspace that declares the winner, under the name of the slot's
    policy. Without ``floor``, that policy's own, or .02.

    Raises
    ------
    NotFoundError
        If the surface or slot is not known.
    ReportError
        If the log cannot be tuned on.
    """
    found = matured_rows(source, surface, slot, None, units, as_of_us)
    drawn = found.only((found.frame["propensity"] < 1).to_numpy(dtype=bool))
    declared = found.surface.slots[slot].policy
    spec = None if declared is None else found.workspace.policies[declared]
    if floor is None:
        floor = spec.floor if spec and spec.floor else 0.02
    tuned = tune(feedback_of(source, drawn, slot), floor=floor, seed=seed, advance=advance)
    low, high = tuned.difference[1:]
    part = {"kind": tuned.winner.kind, **tuned.winner.parameters, "floor": floor}
    return {
        "surface": surface,
        "slot": slot,
        "rows": len(drawn.frame),
        "winner": tuned.winner.name,
        "is_default": tuned.winner == DEFAULT,
        "tried": [
            {"choice": each.choice.name, "mean": each.mean, "gain": each.gain, "se": each.se,
             "lives": each.lives}
            for each in tuned.tried
        ],
        "later": {
            "rows": tuned.played.rows,
            "winner": asdict(tuned.played),
            "default": asdict(tuned.default_played),
            "difference": {"mean": tuned.difference[0], "low": low, "high": high},
        },
        "policies": {declared or f"{surface}_{slot}": part},
    }  # fmt: skip


# Worlds -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Logged contexts, and near rows from which the reward of what was not drawn is taken.

    ``near`` is, by action, (n, m) rows that drew it, the nearest first.
    """

    rows: Sequence[Feedback]
    near: Mapping[str, IntArray]
    seed: int

    def reward(self, row: int, action: str, u: float) -> float:
        """What an action earns at a row; ``u`` in [0, 1) picks the neighbour."""
        if action == self.rows[row].action:
            return self.rows[row].reward
        near = self.near[action][row]
        picked: int = near[int(u * len(near))]
        return self.rows[picked].reward

    def mean(self, row: int, action: str) -> float:
        """What the neighbours of a row earned by an action, on average; never its own reward."""
        return float(np.mean([self.rows[i].reward for i in self.near[action][row]]))

    def known(self, row: int) -> tuple[Action, ...]:
        """The row's eligible actions of which some reward was logged."""
        return tuple(a for a in self.rows[row].actions if a.id in self.near)


def fitted(rows: Sequence[Feedback], seed: int) -> World:
    """The world of some rows.

    How many neighbours an unseen reward is drawn from is chosen by what foretells the logged
    rewards best, each from the other rows: one where like contexts earn alike, many where rewards
    are noisy.
    """
    columns = _columns(rows)
    drawn = np.array([row.action for row in rows])
    reward = np.array([row.reward for row in rows])
    order: dict[str, IntArray] = {}
    square = (columns * columns).sum(axis=1)
    for action in np.unique(drawn):
        members = np.flatnonzero(drawn == action)
        if len(members) <= 1:
            continue
        apart = square[:, None] + square[members] - 2 * columns @ columns[members].T
        apart[members, np.arange(len(members))] = np.inf
        most = min(max(_NEIGHBOURS), len(members) - 1)
        order[str(action)] = members[np.argsort(apart, axis=1, kind="stable")[:, :most]]
    errors = []
    for m in _NEIGHBOURS:
        missed = [
            (reward[i] - reward[order[a][i, :m]].mean()) ** 2
            for i, a in enumerate(drawn)
            if a in order
        ]
        errors.append(float(np.mean(missed)))
    m = _NEIGHBOURS[int(np.argmin(errors))]
    return World(rows, {action: near[:, :m] for action, near in order.items()}, seed)


def _columns(rows: Sequence[Feedback]) -> FloatArray:
    """(n, d) contexts as numbers of unit deviation, one column for each of the common texts."""
    made: list[FloatArray] = []
    for name in sorted({name for row in rows for name in row.context}):
        values = [row.context.get(name) for row in rows]
        numbers = np.array(
            [float(v) if isinstance(v, int | float) else np.nan for v in values], dtype=np.float64
        )
        if not np.isnan(numbers).all():
            made.append(np.nan_to_num(numbers, nan=float(np.nanmean(numbers))))
        texts = [v for v in values if isinstance(v, str)]
        common = sorted(set(texts), key=lambda t: (-texts.count(t), t))[:_MOST_TEXTS]
        made += [np.array([value == text for value in values], dtype=float) for text in common]
    if not made:
        return np.zeros((len(rows), 1))
    stacked = np.column_stack(made)
    spread = stacked.std(axis=0)
    scaled: FloatArray = (stacked - stacked.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    return scaled if scaled.shape[1] else np.zeros((len(rows), 1))


def _life(choice: Choice, world: World, floor: float, seed: int) -> FloatArray:
    """The rewards of a life: half of the rows are learned first as logged, the rest decided on."""
    rng = np.random.default_rng([world.seed, seed])
    order = rng.permutation(len(world.rows))
    half = len(order) // 2
    policy = choice.made()
    policy.learn([world.rows[i] for i in order[:half]])
    ahead = order[half : half + _MOST_LIVED]
    # The same luck for all choices, so that they differ in what they do.
    luck = rng.random((len(ahead), 2))
    earned = np.empty(len(ahead))
    for step, (row, (u, v)) in enumerate(zip(ahead, luck, strict=True)):
        context, actions = world.rows[row].context, world.known(row)
        pmf = apply_floor(policy.pmf(context, actions), floor)
        drawn = draw(pmf, u)
        earned[step] = world.reward(row, actions[drawn].id, v)
        feedback = Feedback(
            context, actions, actions[drawn].id, float(pmf[drawn]), float(earned[step])
        )
        policy.learn([feedback])
    return earned


# Playing back -------------------------------------------------------------------------------------


def played(
    choice: Choice, before: Sequence[Feedback], rows: Sequence[Feedback], floor: float, seed: int
) -> tuple[FloatArray, int]:
    """(n,) doubly robust terms of a policy that learns from the rows it would have drawn.

    A row is accepted, and learned from, with probability π(a)/p · min p/π: then it is as if
    the policy itself had drawn it. Every row tells of its value,

        ψ_i = Σ_a π(a|x_i) r̂(a) + π(a_i|x_i)/p_i (r_i − r̂(a_i)),

    with r̂ the mean of the action's rewards before.

    References
    ----------
    Li, Chu, Langford & Wang (2011), Unbiased Offline Evaluation of Contextual-bandit-based News
    Article Recommendation Algorithms, WSDM; Mandel, Liu, Brunskill & Popović (2016), Offline
    Evaluation of Online Reinforcement Learning Algorithms, AAAI; Dudík, Erhan, Langford & Li
    (2012), Sample-efficient Nonstationary Policy Evaluation for Contextual Bandits, UAI.
    """
    policy = choice.made()
    policy.learn(before)
    sums: dict[str, list[float]] = {}
    for row in before:
        total = sums.setdefault(row.action, [0.0, 0.0])
        total[0] += row.reward
        total[1] += 1
    overall = float(np.mean([row.reward for row in before]))
    least = min(row.propensity for row in rows)
    rng = np.random.default_rng([seed, 1])
    terms, accepted = np.empty(len(rows)), 0
    for index, row in enumerate(rows):
        pmf = apply_floor(policy.pmf(row.context, row.actions), floor)
        ids = [action.id for action in row.actions]
        place = ids.index(row.action)
        said = np.array([sums[i][0] / sums[i][1] if i in sums else overall for i in ids])
        weight = float(pmf[place]) / row.propensity
        terms[index] = float(pmf @ said) + weight * (row.reward - float(said[place]))
        if rng.random() < weight * least:
            policy.learn([replace(row, propensity=float(pmf[place]))])
            accepted += 1
        total = sums.setdefault(row.action, [0.0, 0.0])
        total[0] += row.reward
        total[1] += 1
    return terms, accepted


def _value(terms: FloatArray, accepted: int, reach: float) -> Played:
    mean, low, high = _mean(terms, reach)
    return Played(mean, low, high, len(terms), accepted)


def _mean(terms: FloatArray, reach: float) -> tuple[float, float, float]:
    mean = float(terms.mean())
    half = reach * float(terms.std(ddof=1)) / math.sqrt(len(terms))
    return mean, mean - half, mean + half
