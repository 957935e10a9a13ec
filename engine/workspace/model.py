"""A workspace made valid: frozen values that the decision path reads, nothing left to check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from attribution.metrics import MetricSpec
from engine.rules import Rule
from engine.workspace.item_rules import ItemRule
from experiments import Design, Pin, UsePolicy
from policies import Action, Guarantee, Protections
from recsys.catalogue import ItemSchema
from recsys.plan import SlatePlan
from recsys.rules import NotRecently
from recsys.scoring import LinearScorer
from recsys.settings import TrainSettings

_PARTS = frozenset({"sum", "count"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """A declared attribute. Older than ``max_age_us`` it is unknown; ``required`` may not be."""

    name: str
    type: str
    required: bool
    max_age_us: int | None

    @property
    def scalar(self) -> bool:
        """Whether a policy can read it as a feature."""
        return self.type not in {"list", "timestamp"}


@dataclass(frozen=True, slots=True)
class HardRule:
    """A compiled rule with its owner and the reason that operators read.

    ``actions`` is None for a rule over every action but the slot's default.
    """

    id: str
    kind: str
    rule: Rule
    reason: str
    owner: str
    actions: frozenset[str] | None

    def allows(self, verdict: bool | None) -> bool:
        """Whether the verdict leaves an action open; unknown never does."""
        return verdict is True if self.kind == "eligibility" else verdict is False


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A metric that may not worsen by more than ``margin``; ``direction`` is where better lies.

    Where it is to ``protect``, policies lose actions that are shown to worsen it.
    """

    metric: str
    direction: Literal["up", "down"]
    margin: float
    protect: bool = False


Mode = Literal["serve", "shadow", "apprentice"]
"""How a model learns: what it serves, as if it served, or which action is served."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a candidate must show before it serves.

    ``alpha`` bounds the chance that any promotion was false, over all attempts; ``margin``, in the
    reward's unit, is by how much it must be better; ``rows`` is how many choices judge it at least.
    """

    alpha: float
    margin: float
    rows: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """What learns in a policy's place without serving, and what stands between."""

    policy: PolicySpec
    mode: Mode
    gate: Gate


@dataclass(frozen=True, slots=True)
class Conservative:
    """The least share of the default's reward, 1 − ``alpha``, that is kept but with ``delta``.

    ``share`` is the default's least probability while the policy has a say.
    """

    alpha: float
    delta: float
    share: float


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on some actions in each period, counted from 1970-01-01 UTC.

    ``variant`` (``experiment.variant``) confines it to decisions on that path.
    """

    id: str
    actions: frozenset[str]
    limit: int
    period_us: int
    cost: int
    pace: bool
    variant: str | None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A declared policy: how to make it and how its draws are made.

    A candidate's own is the policy's with another kind and other parameters. Where ``when`` is not
    true the default is served; before ``abstain`` decisions are learned it is served but for the
    floor. A learner's own has the ``guarantee`` that ``conservative`` asks for, and the
    ``protections`` that its surface's guardrails do.
    """

    id: str
    kind: str
    parameters: Mapping[str, Any]
    learns: bool
    floor: float
    period_us: int | None
    salt: str
    shared: bool
    segments: tuple[tuple[str, Rule], ...]
    candidate: Candidate | None = None
    when: Rule | None = None
    abstain: int = 0
    conservative: Conservative | None = None
    guarantee: Guarantee | None = None
    protections: Protections | None = None


@dataclass(frozen=True)
class Slot:
    """One choice on a surface; ``name`` is ``surface.slot``.

    ``after`` names the slots that are decided before, whose actions this one's rules and policies
    read as ``slot.<id>``: its probabilities are conditional on them.
    """

    id: str
    name: str
    default: str
    policy: str | None
    actions: Mapping[str, Action]
    values: Mapping[str, Any]
    rules: tuple[HardRule, ...]
    slates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    after: tuple[str, ...] = ()

    @cached_property
    def action_ids(self) -> tuple[str, ...]:
        """Every action, in declared order."""
        return tuple(self.actions)

    @cached_property
    def covered(self) -> frozenset[str]:
        """The actions under a rule that names none: all but the default."""
        return frozenset(self.actions) - {self.default}


@dataclass(frozen=True)
class Surface:
    """A place where users meet a decision."""

    id: str
    owner: str
    triggers: tuple[str, ...]
    require_trigger: bool
    attributes: Mapping[str, Attribute]
    metrics: Mapping[str, MetricSpec]
    reward: Mapping[str, float]
    guardrails: tuple[Guardrail, ...]
    ranges: Mapping[str, tuple[float, float]]
    rules: tuple[HardRule, ...]
    slots: Mapping[str, Slot]

    @cached_property
    def in_order(self) -> tuple[Slot, ...]:
        """Every slot behind those that it comes after, else in the order of their ids."""
        placed: dict[str, Slot] = {}

        def place(slot: Slot) -> None:
            for earlier in slot.after:
                place(self.slots[earlier])
            placed.setdefault(slot.id, slot)

        for slot in self.slots.values():
            place(slot)
        return tuple(placed.values())

    @cached_property
    def slates(self) -> tuple[str, ...]:
        """The slates that some action here has filled, in the order of their ids."""
        named = {s for slot in self.slots.values() for ids in slot.slates.values() for s in ids}
        return tuple(sorted(named))

    @cached_property
    def reward_range(self) -> tuple[float, float] | None:
        """The least and largest possible reward of a decision, where every metric declares its."""
        if not self.reward or not self.ranges.keys() >= self.reward.keys():
            return None
        ends = [
            sorted((weight * self.ranges[m][0], weight * self.ranges[m][1]))
            for m, weight in self.reward.items()
        ]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    @cached_property
    def protected(self) -> tuple[Guardrail, ...]:
        """The guardrails for whose sake policies lose actions."""
        return tuple(guard for guard in self.guardrails if guard.protect)

    @cached_property
    def learning_horizon_us(self) -> int:
        """Time after which all is final that policies learn from, protected metrics included."""
        protected = [self.metrics[guard.metric].maturity_us for guard in self.protected]
        return max([self.reward_horizon_us, *protected])

    @cached_property
    def only_scalars(self) -> bool:
        """Whether policies can read every attribute."""
        return all(attribute.scalar for attribute in self.attributes.values())

    @cached_property
    def reward_horizon_us(self) -> int:
        """Time after which every metric of the reward is final for a decision."""
        return max((self.metrics[m].maturity_us for m in self.reward), default=0)


@dataclass(frozen=True)
class Learner:
    """One model that learns: a policy, for one slot, from one variant's decisions or outside any.

    ``spec`` digests all that a snapshot depends on beside the log, so that a change of parameters,
    features, reward or windows begins a new lineage instead of continuing a different model.
    """

    id: str
    policy: PolicySpec
    surface: str
    slot: str
    spec: str
    mode: Mode = "serve"


@dataclass(frozen=True)
class Items:
    """What is known of items: the recommender's schema, the attributes' types as rules name them.

    ``interactions`` says by metric what a unit did with the item that an outcome names.
    """

    schema: ItemSchema
    types: Mapping[str, str]
    interactions: Mapping[str, str]


@dataclass(frozen=True)
class Slate:
    """A ranked list: the recommender's plan of it, and what the engine adds.

    ``seeds``, ``owned`` and ``exclude`` name attributes of the surface that hold ids of items,
    ``personal`` one that says whether the unit agreed to what it did choosing items for it.
    ``scorer`` is what predicts the objective before it has learned; None for relevance.
    """

    plan: SlatePlan
    owner: str
    recommender: str
    inline: bool
    salt: str
    rules: Mapping[str, ItemRule]
    seeds: str | None = None
    owned: str | None = None
    exclude: str | None = None
    personal: str | None = None
    scorer: LinearScorer | None = None

    @property
    def id(self) -> str:
        """The name under which it is filled."""
        return self.plan.id


@dataclass(frozen=True, slots=True)
class Recommender:
    """Where candidates come from; one over HTTP has an address and another to fall back on.

    ``train`` says how the model of an embedded one is made.
    """

    id: str
    url: str | None = None
    deadline_us: int = 0
    fallback: str | None = None
    key_from: str | None = None
    train: TrainSettings = field(default_factory=TrainSettings)


@dataclass(frozen=True)
class Workspace:
    """A revision: everything that decisions depend on beside models and the request.

    ``learners`` and ``candidates`` are named alike: a candidate has the id of what it would stand
    in for, and learns from the same choices.
    """

    revision: str
    content: Mapping[str, Any] = field(repr=False)
    surfaces: Mapping[str, Surface]
    policies: Mapping[str, PolicySpec]
    design: Design
    learners: Mapping[str, Learner]
    experiment_owners: Mapping[str, str]
    time_zone: str
    items: Items = field(default_factory=lambda: Items(ItemSchema({}), {}, {}))
    slates: Mapping[str, Slate] = field(default_factory=dict)
    recommenders: Mapping[str, Recommender] = field(default_factory=dict)
    candidates: Mapping[str, Learner] = field(default_factory=dict)

    @cached_property
    def pupils(self) -> tuple[Learner, ...]:
        """All that learn: what serves first, then what would."""
        return (*self.learners.values(), *self.candidates.values())

    @cached_property
    def uses(self) -> Mapping[tuple[str, str], Mapping[str, Pin | UsePolicy]]:
        """What each (experiment, variant) does with the slots that it names."""
        return {
            (experiment.id, variant.id): variant.slots
            for experiment in self.design.experiments
            for variant in experiment.variants
        }

    @cached_property
    def not_held_out(self) -> Mapping[str, Mapping[str, float]]:
        """By surface: the probability of each holdout's not holding a unit."""
        return {
            surface: {
                f"holdout.{holdout.id}": 1 - holdout.share
                for holdout in self.design.holdouts
                if holdout.applies_to(surface)
            }
            for surface in self.surfaces
        }

    @cached_property
    def value_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Of metrics whose every outcome is a value of the metric: what such a value may be.

        Sums and counts are left out, since their outcomes are parts of the value.
        """
        found: dict[str, tuple[float, float]] = {}
        for name in self.metric_names:
            ranges = [
                surface.ranges.get(name)
                for surface in self.surfaces.values()
                if name in surface.metrics and surface.metrics[name].aggregate not in _PARTS
            ]
            if ranges and all(ranges):
                lows, highs = zip(*(r for r in ranges if r), strict=True)
                found[name] = min(lows), max(highs)
        return found

    @cached_property
    def surfaces_with_sticky(self) -> frozenset[str]:
        """The surfaces on which some policy draws once for a whole period."""
        named = [
            (slot.policy, slot.name)
            for surface in self.surfaces.values()
            for slot in surface.slots.values()
        ]
        named += [
            (use.policy, slot)
            for slots in self.uses.values()
            for slot, use in slots.items()
            if isinstance(use, UsePolicy)
        ]
        return frozenset(
            slot.partition(".")[0]
            for policy, slot in named
            if policy is not None and self.policies[policy].period_us is not None
        )

    @cached_property
    def surfaces_with_slates(self) -> frozenset[str]:
        """The surfaces on which some action has slates filled."""
        return frozenset(id_ for id_, surface in self.surfaces.items() if surface.slates)

    @cached_property
    def gating_kinds(self) -> frozenset[str]:
        """The kinds of interactions that keep items out of slates, or say what a unit owns."""
        recent = {
            rule.did
            for slate in self.slates.values()
            for rule in slate.plan.hard
            if isinstance(rule, NotRecently)
        }
        return frozenset({"purchase", "return", *recent})

    @cached_property
    def metric_names(self) -> frozenset[str]:
        """Every metric that some surface declares."""
        return frozenset(m for surface in self.surfaces.values() for m in surface.metrics)


def learner_id(policy: PolicySpec, slot: str, variant: str | None) -> str:
    """The name of the model that serves ``slot`` (``surface.slot``) and learns from it.

    A policy learns from its own variant's decisions only (``experiment.variant``), or outside of
    experiments; ``shared`` joins them.
    """
    scope = f"@{variant}" if variant and not policy.shared else ""
    return f"{policy.id}:{slot}{scope}"


def slot_attribute(slot: str) -> str:
    """The name under which a later slot's rules and policies read the action of ``slot``."""
    return f"slot.{slot}"
