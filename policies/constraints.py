"""Constraints around any policy: a conservative guarantee, and prices on what is scarce.

All of them shape a pmf before the draw, from what a record or a snapshot holds, so that
propensities stay exact and every decision can be made again.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from policies import snapshots
from policies.base import check_feedback
from policies.errors import PolicyError
from policies.types import Action, Context, Feedback, FloatArray, Policy, Winner

GUARDED = "guarded"
"""The kind that a guarded policy's snapshot names."""

WATCHED = "watched"
"""The kind that a watched policy's snapshot names."""

UNBOUNDED = 2**53
"""How many risks may be taken where none can break the guarantee."""

Number = float | FloatArray

# The bound is a union over these slopes, each the best for some variance.
_SLOPES = 0.9 * 0.5 ** np.arange(12)


class Guarantee(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With probability ≥ 1 − ``delta``, at all t, Σ μ(served) ≥ (1 − ``alpha``) Σ μ(``default``).

    Rewards lie in [``low``, ``high``], which is not negative. While the policy may choose at all,
    the default has at least the probability ``share``, from which its own reward is known.
    """

    default: str
    alpha: float
    delta: float
    share: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.delta < 1 and 0 < self.share <= 1):
            raise ValueError("alpha, delta and share lie in (0, 1)")
        if not 0 <= self.low < self.high < math.inf:
            raise ValueError("rewards lie in [low, high] with 0 ≤ low < high")

    @property
    def worst(self) -> float:
        """The most that one risk can lose: (1 − α) high − low; not above 0 if it can lose none."""
        return (1 - self.alpha) * self.high - self.low


@dataclass(slots=True)
class Ledger:
    """What was earned where the default was certain, and where the policy had a say.

    ``certain`` and ``risks`` count matured decisions of either sort, and ``excused`` risks that
    were never served. ``earned`` and ``gained`` are the sums of their terms, ``spread`` and
    ``strayed`` of their squared deviations from what was foretold. ``centre`` is the default's
    mean reward as known when the first risk was taken, NaN before. Floats, or arrays for many runs
    at once.
    """

    certain: Number = 0.0
    earned: Number = 0.0
    spread: Number = 0.0
    risks: Number = 0.0
    gained: Number = 0.0
    strayed: Number = 0.0
    centre: Number = math.nan
    excused: int = 0


def foretold(guarantee: Guarantee, ledger: Ledger) -> Number:
    """The default's mean reward so far, begun with one reward at the middle of the range."""
    middle = (guarantee.low + guarantee.high) / 2
    return (ledger.earned + middle) / (ledger.certain + 1)


def note(
    guarantee: Guarantee,
    ledger: Ledger,
    reward: Number,
    default_propensity: Number,
    certain: bool | npt.NDArray[np.bool_],
) -> None:
    """Note a matured decision in the ledger.

    Parameters
    ----------
    default_propensity
        The propensity of the default if that was drawn; infinite if something else was.
    certain
        Whether the default was certain; else the policy had a say.
    """
    alpha, keep = guarantee.alpha, 1 - guarantee.alpha
    mean = foretold(guarantee, ledger)
    ledger.centre = np.where(~np.isnan(ledger.centre) | certain, ledger.centre, mean)
    centre = np.where(np.isnan(ledger.centre), mean, ledger.centre)
    stray = np.where(certain, alpha * (reward - mean), 0.0)
    # An unbiased estimate of μ(served) − (1 − α) μ(default) at this decision.
    gain = reward - keep * (centre + (reward - centre) / default_propensity)
    ledger.spread += stray * stray
    ledger.earned += np.where(certain, reward, 0.0)
    ledger.certain += np.where(certain, 1.0, 0.0)
    ledger.gained += np.where(certain, 0.0, gain)
    ledger.strayed += np.where(certain, 0.0, (gain - alpha * centre) ** 2)
    ledger.risks += np.where(certain, 0.0, 1.0)


def surplus(guarantee: Guarantee, ledger: Ledger, least_share: float) -> FloatArray:
    """A lower bound of Σ μ(served) − (1 − α) Σ μ(default) over what has matured.

    Two sums, each bounded by the better of its worst case and, at δ/2,

        Σ μ_i ≥ Σ X_i − min_λ (c log(J/δ') + ψ(λ) Σ (X_i − X̂_i)² / c) / λ,   ψ(λ) = −log(1−λ) − λ

    over J slopes λ, with X̂_i foretold from earlier rewards and X_i − X̂_i ≥ −c, at all times at
    once. X_i is α r_i where the default was certain. Where the policy had a say it is

        r_i − (1 − α) (m + 1{default} (r_i − m) / q_i),

    whose mean is that of μ(served) − (1 − α) μ(default) whatever the context.

    Parameters
    ----------
    least_share
        The least q_i with which the default may have been drawn at a risk.

    References
    ----------
    Howard, Ramdas, McAuliffe & Sekhon (2021), Time-uniform, Nonparametric, Nonasymptotic
    Confidence Sequences, Annals of Statistics 49(2), theorem 4; Fan, Grama & Liu (2015),
    Exponential Inequalities for Martingales with Applications, EJP 20. The guarantee is that of
    Wu, Shariff, Lattimore & Szepesvári (2016), Conservative Bandits, and of Kazerouni,
    Ghavamzadeh, Abbasi Yadkori & Van Roy (2017), Conservative Contextual Linear Bandits, without
    their assumption of a model.
    """
    alpha, low, high = guarantee.alpha, guarantee.low, guarantee.high
    delta = guarantee.delta / 2
    sure = alpha * ledger.earned - _excess(ledger.spread, alpha * (high - low), delta)
    bound = np.maximum(sure, alpha * low * ledger.certain)
    centre = np.where(np.isnan(ledger.centre), low, ledger.centre)
    deepest = np.maximum(centre - low, (high - centre) * ((1 - alpha) / least_share - 1))
    risked = ledger.gained - _excess(ledger.strayed, deepest, delta)
    return np.asarray(bound + np.maximum(risked, -guarantee.worst * ledger.risks))


def _excess(variance: Number, deepest: Number, delta: float) -> FloatArray:
    """By how much a sum may exceed that of its means, at any time."""
    least = np.maximum(deepest, 1e-12)
    log = math.log(len(_SLOPES) / delta)
    psi = -np.log1p(-_SLOPES) - _SLOPES
    by_slope = [
        (least * log + curve * variance / least) / slope
        for slope, curve in zip(_SLOPES, psi, strict=True)
    ]
    least_excess: FloatArray = np.minimum.reduce(by_slope)
    return least_excess


class Guarded:
    """A policy that may choose only as far as its ledger pays for the worst.

    Its pmf is the policy's own, mixed with the default's share. `allowance` is the number of
    decisions, of all that were ever made and matured or not, at which that pmf may be used; any
    other must serve the default with certainty.
    """

    kind: ClassVar[str] = GUARDED
    learns: ClassVar[bool] = True
    reward_range: ClassVar[tuple[float, float] | None] = None

    def __init__(
        self, policy: Policy, guarantee: Guarantee, floor: float, ledger: Ledger | None = None
    ) -> None:
        """``floor`` is the exploration floor that is applied to its pmf."""
        self.policy = policy
        self.guarantee = guarantee
        self.floor = floor
        self.ledger = ledger or Ledger()
        self.allowance = self._allowed()

    @property
    def resumable(self) -> bool:
        """Whether the policy is."""
        return self.policy.resumable

    def _allowed(self) -> int:
        cost = self.guarantee.worst
        if cost <= 0:
            return UNBOUNDED
        share = (1 - self.floor) * self.guarantee.share
        left = float(surplus(self.guarantee, self.ledger, share)) / cost
        return int(self.ledger.risks) + self.ledger.excused + max(0, math.floor(left))

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """(k,), see `policies.types.Policy.pmf`."""
        return self._mixed(self.policy.pmf(context, actions), actions)

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """(n, k), see `policies.types.Policy.pmfs`."""
        return self._mixed(self.policy.pmfs(contexts, actions), actions)

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray | None:
        """The policy's own."""
        return self.policy.expected(context, actions)

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray | None]:
        """See `policies.types.Policy.pmf_and_expected`."""
        pmf, expected = self.policy.pmf_and_expected(context, actions)
        return self._mixed(pmf, actions), expected

    def winner(self, actions: Sequence[Action]) -> Winner | None:
        """The policy's own."""
        return self.policy.winner(actions)

    def _mixed(self, pmf: FloatArray, actions: Sequence[Action]) -> FloatArray:
        share = self.guarantee.share
        mixed = (1 - share) * pmf
        mixed[..., self._place(actions)] += share
        return mixed

    def _place(self, actions: Sequence[Action]) -> int:
        for place, action in enumerate(actions):
            if action.id == self.guarantee.default:
                return place
        raise PolicyError(
            f"actions lack {self.guarantee.default!r}, the default that is guaranteed. "
            "It is always eligible."
        )

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Have the policy learn, and note what was earned.

        Raises
        ------
        PolicyError
            If the policy refuses, or a reward lies outside the guarantee's range: nothing of the
            batch is learned then.
        """
        check_feedback(feedback)
        low, high = self.guarantee.low, self.guarantee.high
        for each in feedback:
            if not low <= each.reward <= high:
                raise PolicyError(
                    f"feedback.reward is {each.reward!r}, outside [{low:g}, {high:g}], which is "
                    "guaranteed. Declare the range that is possible."
                )
        self.policy.learn(feedback)
        for each in feedback:
            propensity = each.propensity if each.action == self.guarantee.default else math.inf
            note(self.guarantee, self.ledger, each.reward, propensity, propensity == 1.0)
        self.allowance = self._allowed()

    def excuse(self, count: int) -> None:
        """Note risks that were decided but never served, of which nothing will be learned."""
        self.ledger.excused += count
        self.allowance = self._allowed()

    def dumps(self) -> bytes:
        """Its snapshot: guarantee and ledger, with the policy's own snapshot inside."""
        numbers = msgspec.structs.asdict(self.guarantee) | {"floor": self.floor}
        parameters = {n: v if isinstance(v, str) else float(v) for n, v in numbers.items()}
        ledger = {name: float(v) for name, v in asdict(self.ledger).items()}
        ledger["excused"] = self.ledger.excused
        state = {"policy": self.policy.dumps(), "ledger": ledger}
        return snapshots.pack(self.kind, parameters, state, {})


def restore_guarded(snapshot: snapshots.Snapshot, load: Callable[[bytes], Policy]) -> Guarded:
    """The guarded policy of a snapshot, whose inner one ``load`` reads.

    Raises
    ------
    PolicyError
        If the snapshot's content is not of this kind's form.
    """
    state = snapshot.state_as(_State)
    parameters = dict(snapshot.parameters)
    try:
        floor = float(parameters.pop("floor"))
        guarantee = msgspec.convert(parameters, Guarantee)
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"snapshot.parameters of kind {GUARDED!r}: {error}.") from error
    numbers = dict(state.ledger)
    excused = int(numbers.pop("excused", 0))
    try:
        ledger = Ledger(**numbers, excused=excused)
    except TypeError as error:
        raise PolicyError(f"snapshot.state.ledger of kind {GUARDED!r}: {error}.") from error
    return Guarded(load(state.policy), guarantee, floor, ledger)


class _State(msgspec.Struct, forbid_unknown_fields=True):
    policy: bytes
    ledger: dict[str, float]


class Protection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric that no action may make worse than the default does by more than ``margin``.

    ``sign`` is 1 where more is worse and −1 where less is; values lie in [``low``, ``high``].
    """

    metric: str
    sign: float
    margin: float
    low: float
    high: float


class Protections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is protected against all actions but the ``default``.

    ``delta`` bounds the chance that any action is ever closed that does no harm beyond its margin.
    ``least`` is the least propensity of any eligible action; ``actions`` is how many there are.
    """

    default: str
    metrics: tuple[Protection, ...]
    delta: float
    least: float
    actions: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A matured decision: the draw's eligible actions, the one drawn, and its metrics' values."""

    eligible: Sequence[str]
    action: str
    propensity: float
    values: Mapping[str, float]


class Watched:
    """A policy whose actions are watched, and closed once they are shown to do harm.

    For each action a and metric g it adds up over the rows at which a and the default d were drawn

        X_i = ± (g_i − m_i) (1{a_i = a} − 1{a_i = d}) / p_i,

    with m_i the default's mean before: its expectation is the harm of a beside d in the contexts of
    those rows. `harmful` names g/a once the sum's lower bound, which holds at all times (see
    `surplus`), exceeds the margin; a is to be eligible no more then.
    """

    kind: ClassVar[str] = WATCHED
    learns: ClassVar[bool] = True
    reward_range: ClassVar[tuple[float, float] | None] = None

    def __init__(
        self,
        policy: Policy,
        protections: Protections,
        sums: Mapping[str, list[float]] | None = None,
    ) -> None:
        """``sums`` are, by ``metric/action``, count, Σ X and Σ X²; the default's, count and Σ g."""
        self.policy = policy
        self.protections = protections
        self._sums = {key: list(each) for key, each in (sums or {}).items()}
        self.harmful = self._shown()

    @property
    def resumable(self) -> bool:
        """Whether the policy is."""
        return self.policy.resumable

    def _shown(self) -> tuple[str, ...]:
        """``metric/action`` of each harm that is shown."""
        found = []
        others = max(1, self.protections.actions - 1)
        delta = self.protections.delta / len(self.protections.metrics) / others
        for one in self.protections.metrics:
            deepest = (one.high - one.low) / self.protections.least
            for key, each in self._sums.items():
                metric, _, action = key.partition("/")
                if metric != one.metric or action == self.protections.default:
                    continue
                rows, total, square = each
                if total - float(_excess(square, deepest, delta)) > rows * one.margin:
                    found.append(key)
        return tuple(sorted(found))

    def pmf(self, context: Context, actions: Sequence[Action]) -> FloatArray:
        """The policy's own."""
        return self.policy.pmf(context, actions)

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Action]) -> FloatArray:
        """The policy's own."""
        return self.policy.pmfs(contexts, actions)

    def expected(self, context: Context, actions: Sequence[Action]) -> FloatArray | None:
        """The policy's own."""
        return self.policy.expected(context, actions)

    def pmf_and_expected(
        self, context: Context, actions: Sequence[Action]
    ) -> tuple[FloatArray, FloatArray | None]:
        """The policy's own."""
        return self.policy.pmf_and_expected(context, actions)

    def winner(self, actions: Sequence[Action]) -> Winner | None:
        """The policy's own."""
        return self.policy.winner(actions)

    def learn(self, feedback: Sequence[Feedback]) -> None:
        """Have the policy learn."""
        self.policy.learn(feedback)

    def watch(self, rows: Iterable[Seen]) -> None:
        """Note what matured decisions did to the metrics, in the order of learning."""
        for row in rows:
            if self.protections.default in row.eligible:
                self._note(row)
        self.harmful = self._shown()

    def _note(self, row: Seen) -> None:
        default = self.protections.default
        for one in self.protections.metrics:
            value = min(max(row.values[one.metric], one.low), one.high)
            own = self._sums.setdefault(f"{one.metric}/{default}", [0.0, 0.0])
            mean = (own[1] + (one.low + one.high) / 2) / (own[0] + 1)
            term = one.sign * (value - mean) / max(row.propensity, self.protections.least)
            for id_ in row.eligible:
                if id_ == default:
                    continue
                each = self._sums.setdefault(f"{one.metric}/{id_}", [0.0, 0.0, 0.0])
                each[0] += 1
                if row.action in (id_, default):
                    each[1] += term if row.action == id_ else -term
                    each[2] += term * term
            if row.action == default:
                own[0] += 1
                own[1] += value

    def dumps(self) -> bytes:
        """Its snapshot: what is protected and the sums, with the policy's own snapshot inside."""
        state = {"policy": self.policy.dumps(), "sums": self._sums}
        return snapshots.pack(self.kind, msgspec.to_builtins(self.protections), state, {})


def restore_watched(snapshot: snapshots.Snapshot, load: Callable[[bytes], Policy]) -> Watched:
    """The watched policy of a snapshot, whose inner one ``load`` reads.

    Raises
    ------
    PolicyError
        If the snapshot's content is not of this kind's form.
    """
    state = snapshot.state_as(_WatchedState)
    try:
        protections = msgspec.convert(snapshot.parameters, Protections)
    except msgspec.ValidationError as error:
        raise PolicyError(f"snapshot.parameters of kind {WATCHED!r}: {error}.") from error
    return Watched(load(state.policy), protections, state.sums)


class _WatchedState(msgspec.Struct, forbid_unknown_fields=True):
    policy: bytes
    sums: dict[str, list[float]]


def priced(
    pmf: FloatArray,
    expected: FloatArray | None,
    charge: FloatArray,
    thinning: FloatArray,
    fallback: int,
) -> FloatArray:
    """A pmf in which actions with a charge are chosen only where they are worth it.

    With expected rewards r̂ an action a keeps its probability where r̂_a − charge_a is at least the
    most that an action without a charge is expected to earn; else, and without a model, it
    keeps the share 1 − thinning_a of it. What it loses goes to the actions without a charge, in
    proportion to their own probability, or to ``fallback`` where they have none.

    Parameters
    ----------
    charge, thinning
        (k,), ≥ 0, and in [0, 1]; both 0 where nothing is scarce.
    """
    scarce = thinning > 0
    if not scarce.any() or scarce.all():
        return pmf
    if expected is None:
        kept = np.where(scarce, 1 - thinning, 1.0)
    else:
        worth = expected - charge >= expected[~scarce].max()
        kept = np.where(scarce & ~worth, 0.0, 1.0)
    left = pmf * kept
    others = np.where(scarce, 0.0, pmf)
    if not others.any():
        others[fallback] = 1.0
    found: FloatArray = left + (1 - left.sum()) * others / others.sum()
    return found
