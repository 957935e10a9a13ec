"""The decision itself: a pure function of configuration, models, inputs, id and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.constraints import (
    Scarcity,
    Spend,
    closed_of,
    guard_of,
    may_risk,
    paced,
    risk_key,
    scarcities,
    spends_of,
)
from engine.errors import NotFoundError, RequestError
from engine.record import (
    CODE_VERSION,
    RECORD_VERSION,
    AssignmentRecord,
    ChoiceRecord,
    DecisionRecord,
    DrawRecord,
    IdentityRecord,
    Origin,
    Reason,
)
from engine.request import Attributes, DecideRequest, read_attributes
from engine.shelf import Shelf
from engine.workspace import (
    HardRule,
    PolicySpec,
    Slot,
    Surface,
    Workspace,
    learner_id,
    slot_attribute,
)
from experiments import Assignment, Pin, UsePolicy, assign, bucket
from policies import Action, FloatArray, Policy, PolicyError, apply_floor, draw
from recsys.call import Interaction

WHEN = "policy.when"
"""How a record names the verdict of a policy's own condition, among those of rules."""
GUARDRAIL = "guardrail."
"""What the names of guardrails begin with that closed actions, among the verdicts of a record."""
LEARNED = "learned:"
_LETTERS = {True: "T", False: "F", None: "U"}


@dataclass(frozen=True, slots=True)
class Model:
    """A policy as it serves: restored from ``snapshot``, or made of configuration alone (None).

    ``spec`` is the lineage of a candidate that serves in the declared policy's place, or None.
    ``pinned`` models stay as they are, whatever is learned. ``learned`` counts decisions.
    """

    policy: Policy
    snapshot: str | None = None
    spec: str | None = None
    pinned: bool = False
    learned: int = 0


@dataclass(frozen=True)
class Serving:
    """A revision with a model for each learner and each policy that does not learn, by id.

    ``shelf`` is what slates are filled from, None where the revision has none.
    """

    workspace: Workspace
    models: Mapping[str, Model]
    shelf: Shelf | None = None


@dataclass(frozen=True, slots=True)
class StickyDraw:
    """A draw made earlier in the period: what a later decision on the same path refers to."""

    id: str
    key: str
    uniform: float
    action: str
    propensity: float
    expires_at: int
    redraw: int
    snapshot: str | None
    path: str | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a decision reads beside the request.

    ``sticky`` are the unit's draws, by :func:`sticky_key`; ``spent`` what is spent of each
    allowance, by the keys of :mod:`engine.constraints`; ``history`` what the unit did with items,
    oldest first.
    """

    sticky: Mapping[str, StickyDraw] = field(default_factory=lambda: MappingProxyType({}))
    spent: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    history: tuple[Interaction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Moment:
    """What every slot of one decision shares."""

    serving: Serving
    surface: Surface
    inputs: Inputs
    unit: str
    decision_id: str
    now_us: int
    attributes: Attributes
    assignments: tuple[Assignment, ...]
    closed: bool
    caps: dict[str, int]


def decide(
    serving: Serving,
    request: DecideRequest,
    inputs: Inputs,
    *,
    decision_id: str,
    now_us: int,
    origin: Origin = "live",
) -> DecisionRecord:
    """The decision on a request, with all that is needed to explain, replay and evaluate it.

    Raises
    ------
    NotFoundError
        If the surface is not declared.
    RequestError
        If a slot, trigger or attribute is not what the surface declares.
    """
    surface = _surface(serving.workspace, request)
    slots = _slots(surface, request.slots)
    attributes = read_attributes(surface, request.context, now_us)
    unit = request.unit
    verdicts, closed = _surface_verdicts(surface, attributes)
    moment = _Moment(
        serving=serving,
        surface=surface,
        inputs=inputs,
        unit=unit,
        decision_id=decision_id,
        now_us=now_us,
        attributes=attributes,
        assignments=assign(serving.workspace.design, unit, surface.id),
        closed=closed,
        caps={},
    )
    fallback = _insufficient(surface, attributes)
    asked = {slot.id for slot in slots}
    chosen: dict[str, ChoiceRecord] = {}
    for slot in surface.in_order:
        if slot.id in asked:
            chosen[slot.id] = (
                _defaulted(slot, fallback)
                if fallback
                else _choose(slot, moment, earlier_actions(slot, chosen))
            )
    choices = tuple(chosen[slot.id] for slot in slots)
    return DecisionRecord(
        record_version=RECORD_VERSION,
        decision_id=decision_id,
        request_id=request.request_id,
        origin=origin,
        decided_at=now_us,
        time_zone=serving.workspace.time_zone,
        identity=IdentityRecord(request.user_id, request.anonymous_id, unit),
        surface=surface.id,
        trigger=request.trigger,
        context=dict(attributes.recorded),
        ages_us=dict(attributes.ages_us),
        unknown=dict(attributes.unknown),
        verdicts=verdicts,
        revision=serving.workspace.revision,
        code_version=CODE_VERSION,
        assignments=tuple(
            AssignmentRecord(a.kind, a.id, a.variant, a.probability, dict(a.factors))
            for a in moment.assignments
        ),
        choices=choices,
        caps=moment.caps,
        fallback=fallback or next((c.fallback for c in choices if c.fallback), None),
        traceparent=request.traceparent,
    )


def earlier_actions(slot: Slot, chosen: Mapping[str, ChoiceRecord]) -> dict[str, str | None]:
    """What the slots before ``slot`` got in a decision, as its rules and policies read it.

    None for a slot that the decision did not make, as an import's.
    """
    return {
        slot_attribute(earlier): chosen[earlier].action if earlier in chosen else None
        for earlier in slot.after
    }


def sticky_key(policy: PolicySpec, slot: str, unit: str, now_us: int) -> str:
    """What a sticky draw is hashed from, ahead of its salt: ``surface:slot:unit:period``.

    Periods are counted from 1970-01-01 UTC.
    """
    period = now_us // (policy.period_us or 1)
    return f"{policy.salt}:{slot.replace('.', ':')}:{unit}:{period}"


def _surface(workspace: Workspace, request: DecideRequest) -> Surface:
    surface = workspace.surfaces.get(request.surface)
    if surface is None:
        raise NotFoundError("surface", unknown_name(request.surface, workspace.surfaces))
    if request.trigger is None:
        if surface.require_trigger:
            raise RequestError("trigger", f"is missing; give one of {_names(surface.triggers)}")
    elif request.trigger not in surface.triggers:
        raise RequestError("trigger", unknown_name(request.trigger, surface.triggers))
    return surface


def _slots(surface: Surface, names: tuple[str, ...] | None) -> tuple[Slot, ...]:
    if names is None:
        return tuple(surface.slots.values())
    if not names or len(set(names)) != len(names):
        raise RequestError("slots", "is empty or names a slot twice; leave it out for all")
    for index, name in enumerate(names):
        if name not in surface.slots:
            raise RequestError(f"slots[{index}]", unknown_name(name, surface.slots))
        for earlier in surface.slots[name].after:
            if earlier not in names:
                message = f'is "{name}", which comes after "{earlier}"; ask for both of them'
                raise RequestError(f"slots[{index}]", message)
    return tuple(surface.slots[name] for name in names)


def unknown_name(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """What is wrong with a name that is none of those known."""
    shown = name if len(name) <= 64 else name[:61] + "…"
    return f'is "{shown}", which is not declared; known: {_names(tuple(known))}'


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"


def _insufficient(surface: Surface, attributes: Attributes) -> str | None:
    """Why the context does not suffice to decide on, if it does not."""
    for name, reason in attributes.unknown.items():
        declared = surface.attributes.get(name)
        if declared and declared.required:
            return f"required attribute {name} is {reason}"
    return None


def _defaulted(slot: Slot, fallback: str) -> ChoiceRecord:
    return ChoiceRecord(
        slot=slot.id,
        action=slot.default,
        propensity=1.0,
        reason="fallback",
        candidates=slot.action_ids,
        verdicts={},
        eligible=(slot.default,),
        path=None,
        path_factors={},
        fallback=fallback,
    )


def _choose(slot: Slot, moment: _Moment, before: Mapping[str, str | None]) -> ChoiceRecord:
    verdicts, eligible = _eligible(slot, moment, before)
    plan = _plan(slot, moment)
    scarce = _met(slot, moment, plan.path)
    for each in scarce:
        if each.closed:
            eligible = tuple([a for a in eligible if a not in each.budget.actions])
    served = _served(slot, moment, plan.path, plan.policy) if plan.policy else None
    harmful = closed_of(served.model.policy) if served else {}
    for metric, actions in harmful.items():
        verdicts[f"{GUARDRAIL}{metric}"] = dict.fromkeys(actions, "F")
        eligible = tuple([a for a in eligible if a not in actions])

    def settled(action: str, reason: Reason, fallback: str | None = None) -> ChoiceRecord:
        return ChoiceRecord(
            slot=slot.id,
            action=action,
            propensity=1.0,
            reason=reason,
            candidates=slot.action_ids,
            verdicts=verdicts,
            eligible=eligible,
            path=plan.path,
            path_factors=plan.factors,
            policy=plan.policy.id if plan.policy else None,
            # What a model closed, only its snapshot can tell again.
            learner=served.learner if served and harmful else None,
            spec=served.spec if served and harmful else None,
            snapshot=served.model.snapshot if served and harmful else None,
            fallback=fallback,
        )

    if plan.policy is None or served is None:
        if plan.pinned is None:
            return settled(slot.default, plan.reason)
        if plan.pinned in eligible:
            return settled(plan.pinned, plan.reason)
        return settled(slot.default, "rule")
    when = plan.policy.when
    if when is not None:
        verdict, clauses = when.evaluate(moment.attributes.values)
        verdicts[WHEN] = _LETTERS[verdict] + clauses
        if verdict is not True:
            return settled(slot.default, "rule")
    # With one action left nothing is drawn, nor is a sticky draw referred to: its reward would
    # gain such decisions only where the default had been drawn.
    if len(eligible) == 1:
        return settled(slot.default, "rule" if len(slot.actions) > 1 else plan.reason)
    try:
        return _drawn(slot, moment, plan, plan.policy, served, verdicts, eligible, scarce, before)
    except PolicyError as error:
        return settled(slot.default, "fallback", f"policy {plan.policy.id}: {error}")


def _met(slot: Slot, moment: _Moment, path: str | None) -> tuple[Scarcity, ...]:
    """The budgets that the choice meets; what was spent of them goes on record."""
    if not slot.budgets:
        return ()
    found = scarcities(slot, path, moment.now_us, moment.inputs.spent)
    moment.caps.update({each.key: each.spent for each in found})
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the assignment makes of a slot: a policy, a pinned action, or neither (the default)."""

    path: str | None
    factors: dict[str, float]
    reason: Reason
    policy: PolicySpec | None = None
    pinned: str | None = None


def _plan(slot: Slot, moment: _Moment) -> _Plan:
    workspace = moment.serving.workspace
    for assignment in moment.assignments:
        if assignment.kind == "holdout":
            return _Plan(assignment.id, dict(assignment.factors), "holdout")
        use = workspace.uses[assignment.id, assignment.variant].get(slot.name)
        if use is None:
            continue
        path, factors = f"{assignment.id}.{assignment.variant}", dict(assignment.factors)
        match use:
            case Pin(action=action):
                return _Plan(path, factors, "experiment", pinned=action)
            case UsePolicy(policy=policy):
                return _Plan(path, factors, "policy", policy=workspace.policies[policy])
    factors = dict(workspace.not_held_out[moment.surface.id])
    if slot.policy is None:
        return _Plan(None, factors, "default")
    return _Plan(None, factors, "policy", policy=workspace.policies[slot.policy])


def _surface_verdicts(surface: Surface, attributes: Attributes) -> tuple[dict[str, str], bool]:
    """The verdict of each of the surface's rules, and whether one closes all but the defaults."""
    verdicts = {}
    closed = False
    for rule in surface.rules:
        verdict, verdicts[rule.id] = _verdict(rule, attributes.values)
        closed = closed or not rule.allows(verdict)
    return verdicts, closed


def _eligible(
    slot: Slot, moment: _Moment, before: Mapping[str, str | None]
) -> tuple[dict[str, str | dict[str, str]], tuple[str, ...]]:
    """The verdict of each of the slot's rules, and the actions left; the default always is."""
    verdicts: dict[str, str | dict[str, str]] = {}
    blocked = set(slot.covered) if moment.closed else set()
    values = moment.attributes.values
    if before:
        values = {**values, **before}
    for rule in slot.rules:
        covered = rule.actions if rule.actions is not None else slot.covered
        if rule.rule.reads_action:
            by_action = {}
            for id_ in slot.action_ids:
                if id_ in covered:
                    of_action = _with_features(values, slot.actions[id_])
                    verdict, by_action[id_] = _verdict(rule, of_action)
                    if not rule.allows(verdict):
                        blocked.add(id_)
            verdicts[rule.id] = by_action
        else:
            verdict, verdicts[rule.id] = _verdict(rule, values)
            if not rule.allows(verdict):
                blocked |= covered
    if not blocked:
        return verdicts, slot.action_ids
    return verdicts, tuple([a for a in slot.action_ids if a not in blocked])


def _verdict(rule: HardRule, values: Mapping[str, Any]) -> tuple[bool | None, str]:
    """A rule's verdict, and its letter before those of its clauses."""
    verdict, clauses = rule.rule.evaluate(values)
    return verdict, _LETTERS[verdict] + clauses


def _with_features(values: Mapping[str, Any], action: Action) -> Mapping[str, Any]:
    return {**values, **{f"action.{name}": value for name, value in action.features.items()}}


@dataclass(frozen=True, slots=True)
class _Served:
    """The model that serves a slot on a path, and whose lineage it is of."""

    model: Model
    learner: str | None
    spec: str | None


def _served(slot: Slot, moment: _Moment, path: str | None, policy: PolicySpec) -> _Served:
    models = moment.serving.models
    if not (policy.learns or policy.candidate):
        return _Served(models[policy.id], None, None)
    id_ = learner_id(policy, slot.name, path)
    # What never learns has a model of its own only where a candidate took its place.
    model = models.get(id_) or models[policy.id]
    declared = moment.serving.workspace.learners.get(id_)
    return _Served(model, id_, model.spec or (declared.spec if declared else None))


def _drawn(
    slot: Slot,
    moment: _Moment,
    plan: _Plan,
    policy: PolicySpec,
    served: _Served,
    verdicts: dict[str, str | dict[str, str]],
    eligible: tuple[str, ...],
    scarce: tuple[Scarcity, ...],
    before: Mapping[str, str | None],
) -> ChoiceRecord:
    model = served.model
    choice = partial(
        ChoiceRecord,
        slot=slot.id,
        reason=plan.reason,
        candidates=slot.action_ids,
        verdicts=verdicts,
        eligible=eligible,
        path=plan.path,
        path_factors=plan.factors,
        policy=policy.id,
        learner=served.learner,
        spec=served.spec,
    )
    redraw = 0
    expires_at = None
    if policy.period_us is not None:
        key = sticky_key(policy, slot.name, moment.unit, moment.now_us)
        expires_at = (moment.now_us // policy.period_us + 1) * policy.period_us
        earlier = moment.inputs.sticky.get(key)
        # A draw of another variant's model is none of this one's.
        if earlier and earlier.action in eligible and earlier.path == plan.path:
            return choice(
                action=earlier.action,
                propensity=earlier.propensity,
                floor=policy.floor,
                snapshot=earlier.snapshot,
                draw=DrawRecord(
                    earlier.id,
                    earlier.key,
                    earlier.uniform,
                    drawn=False,
                    expires_at=earlier.expires_at,
                    redraw=earlier.redraw,
                ),
            )
        if earlier is not None:
            redraw = earlier.redraw + 1
        # A redraw hashes another text: the first draw's uniform is spent on the set it saw.
        hashed = f"{key}:{redraw}" if redraw else key
    else:
        hashed = f"{policy.salt}:{moment.surface.id}:{slot.id}:{moment.decision_id}"
    context = policy_context(policy, moment.attributes, before)
    own, expected = model.policy.pmf_and_expected(context, [slot.actions[a] for a in eligible])
    pmf, floor = _constrained(slot, moment, policy, served, eligible, scarce, own, expected)
    salt, _, rest = hashed.partition(":")
    uniform = bucket(salt, rest)
    index = draw(pmf, uniform)
    draw_id = f"{moment.decision_id}/{slot.id}"
    return choice(
        action=eligible[index],
        propensity=float(pmf[index]),
        floor=floor,
        snapshot=model.snapshot,
        pmf_policy=tuple(own.tolist()),
        pmf=tuple(pmf.tolist()),
        expected=None if expected is None else tuple(expected.tolist()),
        draw=DrawRecord(draw_id, hashed, uniform, expires_at=expires_at, redraw=redraw),
    )


def _constrained(
    slot: Slot,
    moment: _Moment,
    policy: PolicySpec,
    served: _Served,
    eligible: tuple[str, ...],
    scarce: tuple[Scarcity, ...],
    own: FloatArray,
    expected: FloatArray | None,
) -> tuple[FloatArray, float]:
    """The pmf that is drawn from, and the floor in it; what it turned on goes on record."""
    default = eligible.index(slot.default)
    guarded = guard_of(served.model.policy)
    if guarded is not None:
        key = risk_key(served.learner or "", served.spec or "")
        moment.caps[key] = moment.inputs.spent.get(key, 0)
        if not may_risk(guarded, moment.caps[key]):
            certain = np.zeros(len(eligible))
            certain[default] = 1.0
            return certain, 0.0
    pmf = own
    if policy.abstain:
        moment.caps[f"{LEARNED}{served.learner}"] = served.model.learned
        if served.model.learned < policy.abstain:
            pmf = np.zeros(len(eligible))
            pmf[default] = 1.0
    if scarce:
        known = moment.surface.reward_range
        width = None if known is None else known[1] - known[0]
        pmf = paced(pmf, expected, eligible, slot.default, width, scarce)
    return apply_floor(pmf, policy.floor), policy.floor


def spends(serving: Serving, record: DecisionRecord) -> tuple[Spend, ...]:
    """What a decision spends of the budgets and guarantees that it was made under."""
    found: list[Spend] = []
    slots = serving.workspace.surfaces[record.surface].slots
    for choice in record.choices:
        slot = slots[choice.slot]
        if slot.budgets and choice.action != slot.default:
            met = scarcities(slot, choice.path, record.decided_at, record.caps)
            found += spends_of(met, choice.action)
        if choice.learner is None or choice.spec is None or choice.pmf is None:
            continue
        guarded = guard_of(serving.models[choice.learner].policy)
        if guarded is None:
            continue
        if choice.pmf[choice.eligible.index(slot.default)] < 1.0:
            found.append(Spend(risk_key(choice.learner, choice.spec), 1, guarded.allowance))
    return tuple(found)


def policy_context(
    policy: PolicySpec, attributes: Attributes, before: Mapping[str, str | None]
) -> Mapping[str, Any]:
    """What a policy reads: scalar attributes, ``segment.<id>`` for each of its segments, and what
    the slots before got, of `earlier_actions`.
    """
    if not policy.segments and not before:
        return attributes.features
    segments = {
        f"segment.{id_}": rule.evaluate(attributes.values).verdict for id_, rule in policy.segments
    }
    return {**attributes.features, **segments, **before}
