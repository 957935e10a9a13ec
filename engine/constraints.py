"""Constraints as they act on a decision: what is scarce, what may be risked, and what each costs.

What a decision must know beside the request, how much was spent, is counted in the log itself and
by it: each entry says what it spends and how much may be spent, and the writer, whose turn it is,
refuses what would go beyond. So a budget holds for any number of replicas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.workspace import Budget, Slot
from policies import Guarded, Policy, Watched, priced

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spend:
    """What a log entry spends under a key, and how much may be spent under it in all."""

    key: str
    amount: int
    most: int


@dataclass(frozen=True, slots=True)
class Scarcity:
    """A budget at one moment: what was spent of it in this period, and by how much too soon."""

    budget: Budget
    key: str
    spent: int
    ahead: float

    @property
    def closed(self) -> bool:
        """Whether what is left does not pay for once more."""
        return self.spent + self.budget.cost > self.budget.limit


def scarcities(
    slot: Slot, path: str | None, now_us: int, spent: Mapping[str, int]
) -> tuple[Scarcity, ...]:
    """The budgets that a choice of a slot meets on its way (``experiment.variant``, or None).

    Planned is an even spending over the period; ``ahead`` is what was spent beyond that.
    """
    found = []
    for budget in slot.budgets:
        if budget.variant is not None and budget.variant != path:
            continue
        period, within = divmod(now_us, budget.period_us)
        key = f"budget:{slot.name}:{budget.id}:{period}"
        used = spent.get(key, 0)
        planned = budget.limit * within / budget.period_us
        found.append(Scarcity(budget, key, used, max(0.0, used - planned)))
    return tuple(found)


def paced(
    pmf: FloatArray,
    expected: FloatArray | None,
    eligible: Sequence[str],
    default: str,
    reward_width: float | None,
    found: Sequence[Scarcity],
) -> FloatArray:
    """The pmf with each scarce action at its price.

    The price of a unit of the budget is that of dual averaging,

        λ = reward_width · max(0, spent − planned) / √limit,

    a function of what was spent alone. Where the reward's range or the policy's expected rewards
    are not known, the action's probability is thinned by (spent − planned) / √limit instead.

    References
    ----------
    Balseiro, Lu & Mirrokni (2023), The Best of Many Worlds: Dual Mirror Descent for Online
    Allocation Problems, Operations Research 71(1); Xiao (2010), Dual Averaging Methods, JMLR 11.
    """
    charge, thinning = np.zeros(len(eligible)), np.zeros(len(eligible))
    for each in found:
        if not each.budget.pace or each.ahead == 0:
            continue
        pressure = each.ahead / math.sqrt(each.budget.limit)
        for place, action in enumerate(eligible):
            if action in each.budget.actions:
                thinning[place] = max(thinning[place], min(1.0, pressure))
                charge[place] += (reward_width or 0.0) * pressure * each.budget.cost
    known = expected if reward_width is not None else None
    return priced(pmf, known, charge, thinning, eligible.index(default))


def guard_of(policy: Policy) -> Guarded | None:
    """The guarantee that a model works under, watched or not."""
    inner = policy.policy if isinstance(policy, Watched) else policy
    return inner if isinstance(inner, Guarded) else None


def closed_of(policy: Policy) -> dict[str, list[str]]:
    """By metric, the actions that a model's guardrails have closed."""
    found: dict[str, list[str]] = {}
    for key in policy.harmful if isinstance(policy, Watched) else ():
        metric, _, action = key.partition("/")
        found.setdefault(metric, []).append(action)
    return found


def risk_key(learner: str, spec: str) -> str:
    """What the risks of a guarded learner's lineage are counted by."""
    return f"risk:{spec}:{learner}"


def may_risk(guarded: Guarded, spent: int) -> bool:
    """Whether the guarantee leaves room for one more decision of the policy's own."""
    return spent + 1 <= guarded.allowance


def spends_of(found: Sequence[Scarcity], action: str) -> tuple[Spend, ...]:
    """What serving an action spends of the budgets it met."""
    return tuple(
        Spend(each.key, each.budget.cost, each.budget.limit)
        for each in found
        if action in each.budget.actions
    )
