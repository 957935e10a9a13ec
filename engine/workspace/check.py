"""Making a :class:`Workspace` of validated parts; every fault between parts is noted at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

import msgspec
from msgspec import to_builtins
from msgspec.structs import asdict

from attribution.metrics import MetricSpec
from engine.errors import ConfigurationError, Fault, RuleError
from engine.rules import Rule, parse
from engine.workspace.grid import expand
from engine.workspace.model import (
    Attribute,
    Budget,
    Candidate,
    Conservative,
    Gate,
    Guardrail,
    HardRule,
    Learner,
    Mode,
    PolicySpec,
    Slot,
    Surface,
    Workspace,
    learner_id,
    slot_attribute,
)
from engine.workspace.schema import (
    EMBEDDED,
    ActionPart,
    BudgetPart,
    CandidatePart,
    ExperimentPart,
    MetricPart,
    PolicyPart,
    RulePart,
    SlotPart,
    SurfacePart,
    WorkspacePart,
)
from engine.workspace.shape import validated
from engine.workspace.slates import compile_items, compile_recommenders, compile_slates
from engine.workspace.source import Path_, Source, canonical, digest, read
from experiments import Design, Experiment, ExperimentError, Holdout, Pin, UsePolicy, Variant
from policies import (
    POLICY_KINDS,
    Action,
    Guarantee,
    PolicyError,
    Protection,
    Protections,
    action_refusal,
    parameter_faults,
)

PROTECTION_DELTA = 0.05
"""The chance that a learner ever loses an action that does no harm beyond a guardrail's margin."""

_OWN_POLICY_KEYS = frozenset(PolicyPart.model_fields)


def load_workspace(folder: Path) -> Workspace:
    """The workspace of a folder.

    Raises
    ------
    ConfigurationError
        With every fault of every file, each with file, line, field, value and repair.
    """
    source = read(folder)
    expand(source)
    source.content = _in_canonical_order(source.content)
    return _compiled(source)


def workspace_from_content(content: bytes) -> Workspace:
    """The workspace of a stored revision's canonical JSON.

    Raises
    ------
    ConfigurationError
        If this version no longer accepts what an earlier one stored.
    """
    return _compiled(Source(content=msgspec.json.decode(content)))


def canonical_content(workspace: Workspace) -> bytes:
    """The JSON text whose SHA-256 is the workspace's revision."""
    return canonical(workspace.content)


def _in_canonical_order(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content in the order in which a stored revision is read back.

    Draws and variants follow the order of actions and variants, so that one digest must have one
    order. What the written order alone says, which variant is the baseline, is said in words first.
    """
    layers = content.get("layers")
    for layer in layers.values() if isinstance(layers, Mapping) else ():
        for experiment in layer.values() if isinstance(layer, Mapping) else ():
            variants = experiment.get("variants") if isinstance(experiment, dict) else None
            if isinstance(variants, Mapping) and variants and not experiment.get("baseline"):
                experiment["baseline"] = next(iter(variants))
    ordered: dict[str, Any] = msgspec.json.decode(canonical(content))
    return ordered


def _compiled(source: Source) -> Workspace:
    parts = None if source.faults and not source.content else validated(source)
    workspace = _Compiler(source, parts).workspace() if parts else None
    if source.faults or workspace is None:
        raise ConfigurationError(tuple(sorted(source.faults, key=_position)))
    return workspace


def _position(fault: Fault) -> tuple[str, int, str]:
    return (str(fault.file or ""), fault.line or 0, fault.field)


class _Compiler:
    """Walks the validated parts once, noting faults and building values."""

    def __init__(self, source: Source, parts: WorkspacePart) -> None:
        self.source = source
        self.parts = parts
        self.policy_users: dict[str, dict[str, SlotPart]] = {}

    def workspace(self) -> Workspace | None:
        """The compiled workspace, or None where a fault leaves nothing to build it from."""
        design = self._design()
        surfaces = {id_: self._surface(id_, part) for id_, part in self.parts.surfaces.items()}
        policies = {id_: self._policy(id_, part) for id_, part in self.parts.policies.items()}
        items = compile_items(self.parts.items, self.source)
        self._interactions()
        recommenders = compile_recommenders(self.parts.recommenders, self.source, self._refer)
        slates = compile_slates(
            self.parts.slates,
            items,
            (EMBEDDED, *self._declared("recommenders")),
            self.parts.surfaces,
            self.source,
            self._refer,
        )
        if self.source.faults or design is None:
            return None
        sound = {id_: policy for id_, policy in policies.items() if policy}
        return Workspace(
            items=items,
            slates=slates,
            recommenders=recommenders,
            revision=digest(self.source.content),
            content=self.source.content,
            surfaces=surfaces,
            policies=sound,
            design=design,
            learners=self._learners(surfaces, sound),
            candidates=self._candidates(surfaces, sound),
            experiment_owners=self._experiment_owners(),
            time_zone=self.parts.time_zone,
        )

    def _interactions(self) -> None:
        """What units do with items is told by outcomes, whose metrics must be declared."""
        metrics = {
            metric
            for surface in self._declared("surfaces")
            for metric in self._declared("surfaces", surface, "metrics")
        }
        for metric in self.parts.items.interactions if self.parts.items else ():
            self._refer(("items", "interactions", metric), metric, metrics, "metric of a surface")

    def _declared(self, *path: str) -> Iterable[str]:
        """The names written at a path, sound or not: a faulty part still counts as declared."""
        node: Any = self.source.content
        for part in path:
            node = node.get(part, {}) if isinstance(node, Mapping) else {}
        return tuple(node) if isinstance(node, Mapping) else ()

    def _refer(self, path: Path_, name: str, known: Iterable[str], what: str) -> bool:
        known = sorted(known)
        if name in known:
            return True
        near = get_close_matches(name, known, n=1)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        listed = ", ".join(f'"{k}"' for k in known) or "none"
        self.source.fault(path, f"is no declared {what}; {hint}Known: {listed}", name)
        return False

    # Surfaces ---------------------------------------------------------------------------------

    def _surface(self, id_: str, part: SurfacePart) -> Surface:
        path: Path_ = ("surfaces", id_)
        metrics = {m: self._metric(m, p) for m, p in part.metrics.items()}
        for section in ("reward", "guardrails"):
            for metric in getattr(part, section):
                self._refer(
                    (*path, section, metric),
                    metric,
                    self._declared("surfaces", id_, "metrics"),
                    "metric of the surface",
                )
        for name, metric_part in part.metrics.items():
            ends = metric_part.range
            if ends is not None and not ends[0] < ends[1]:
                self.source.fault(
                    (*path, "metrics", name, "range"), "must be [low, high] with low < high", ends
                )
        if part.require_trigger and not part.triggers:
            self.source.fault((*path, "require_trigger"), "needs `triggers` to choose from", True)
        types = {name: a.type for name, a in part.attributes.items()}
        shared = tuple(
            r
            for index, rule in enumerate(part.rules)
            if (r := self._rule((*path, "rules", index), rule, types, {}, part.owner))
        )
        for index, rule in enumerate(part.rules):
            if rule.actions:
                self.source.fault(
                    (*path, "rules", index, "actions"),
                    "cannot stand on a surface's rule; move the rule to the slot of these actions",
                    rule.actions,
                )
        return Surface(
            id=id_,
            owner=part.owner,
            triggers=tuple(part.triggers),
            require_trigger=part.require_trigger,
            attributes={
                name: Attribute(name, a.type, a.required, a.max_age)
                for name, a in part.attributes.items()
            },
            metrics=metrics,
            reward=part.reward,
            guardrails=tuple(
                Guardrail(m, g.direction, g.margin, g.protect) for m, g in part.guardrails.items()
            ),
            ranges={
                m: (p.range[0], p.range[1]) for m, p in part.metrics.items() if p.range is not None
            },
            rules=shared,
            slots={
                slot: self._slot((*path, "slots", slot), id_, slot, slot_part, part, types, shared)
                for slot, slot_part in part.slots.items()
            },
        )

    def _metric(self, name: str, part: MetricPart) -> MetricSpec:
        return MetricSpec(
            name=name,
            window_s=part.window / 1e6,
            lateness_s=part.lateness / 1e6,
            aggregate=part.aggregate,
            default=part.default,
        )

    def _slot(
        self,
        path: Path_,
        surface: str,
        id_: str,
        part: SlotPart,
        surface_part: SurfacePart,
        types: Mapping[str, str],
        shared: tuple[HardRule, ...],
    ) -> Slot:
        declared = self._declared("surfaces", surface, "slots", id_, "actions")
        self._refer((*path, "default"), part.default, declared, "action of the slot")
        if part.policy is not None:
            self._use_policy((*path, "policy"), part.policy, f"{surface}.{id_}")
        actions = {
            a: self._action((*path, "actions", a), a, action) for a, action in part.actions.items()
        }
        for a, action_part in part.actions.items():
            for at, slate in enumerate(action_part.slates):
                where: Path_ = (*path, "actions", a, "slates", at)
                self._refer(where, slate, self._declared("slates"), "slate")
        features = _feature_types(path, self.source, part)
        for index, rule in enumerate(part.rules):
            for at, action in enumerate(rule.actions or ()):
                place: Path_ = (*path, "rules", index, "actions", at)
                if action == part.default:
                    self.source.fault(
                        place,
                        "is the slot's default, which must always be servable; name other actions",
                        action,
                    )
                else:
                    self._refer(place, action, declared, "action of the slot")
        self._after(path, id_, part, surface_part)
        types = {**types, **dict.fromkeys(map(slot_attribute, part.after), "string")}
        own = tuple(
            r
            for index, rule in enumerate(part.rules)
            if (r := self._rule((*path, "rules", index), rule, types, features, surface_part.owner))
        )
        self._unique_rules(path, (*shared, *own))
        return Slot(
            id=id_,
            name=f"{surface}.{id_}",
            default=part.default,
            policy=part.policy,
            actions=actions,
            values={a: action.value for a, action in part.actions.items()},
            rules=own,
            slates={a: tuple(x.slates) for a, x in part.actions.items() if x.slates},
            budgets=self._budgets(path, part, declared),
            after=tuple(part.after),
        )

    def _budgets(self, path: Path_, part: SlotPart, declared: Iterable[str]) -> tuple[Budget, ...]:
        paths = {
            f"{id_}.{variant}"
            for experiments in self.parts.layers.values()
            for id_, experiment in experiments.items()
            for variant in experiment.variants
        }
        seen: set[str] = set()
        for index, budget in enumerate(part.budgets):
            place: Path_ = (*path, "budgets", index)
            if budget.id in seen:
                self.source.fault((*place, "id"), "is of two budgets; rename one", budget.id)
            seen.add(budget.id)
            if budget.cost > budget.limit:
                self.source.fault((*place, "cost"), "is more than the `limit`", budget.cost)
            if budget.variant is not None:
                self._refer((*place, "variant"), budget.variant, paths, "experiment.variant")
            for at, action in enumerate(budget.actions):
                if action == part.default:
                    self.source.fault(
                        (*place, "actions", at),
                        "is the slot's default, which must always be servable; name other actions",
                        action,
                    )
                else:
                    self._refer((*place, "actions", at), action, declared, "action of the slot")
        return tuple(_budget(budget) for budget in part.budgets)

    def _after(self, path: Path_, id_: str, part: SlotPart, surface: SurfacePart) -> None:
        """What a slot comes after must be there, and may not come after it in turn."""
        for at, earlier in enumerate(part.after):
            place: Path_ = (*path, "after", at)
            declared = self._declared(*map(str, path[:-1]))
            if self._refer(place, earlier, declared, "slot of the surface"):
                before, waiting = set(), [earlier]
                while waiting:
                    slot = waiting.pop()
                    if slot not in before and slot in surface.slots:
                        before.add(slot)
                        waiting += surface.slots[slot].after
                if id_ in before:
                    message = f'comes itself after "{id_}"; let one of them go first'
                    self.source.fault(place, message, earlier)

    def _action(self, path: Path_, id_: str, part: ActionPart) -> Action:
        try:
            return Action(id_, part.features)
        except PolicyError as error:
            self.source.fault((*path, "features"), str(error), part.features)
            return Action(id_)

    def _unique_rules(self, path: Path_, rules: tuple[HardRule, ...]) -> None:
        seen: set[str] = set()
        for rule in rules:
            if rule.id in seen:
                self.source.fault(
                    (*path, "rules"), "names two rules alike; rename one of them", rule.id
                )
            seen.add(rule.id)

    def _rule(
        self,
        path: Path_,
        part: RulePart,
        attributes: Mapping[str, str],
        features: Mapping[str, str],
        owner: str,
    ) -> HardRule | None:
        types = {**attributes, **{f"action.{name}": type_ for name, type_ in features.items()}}
        rule = self._parsed((*path, "when"), part.when, types, str(path[1]))
        if rule is None:
            return None
        return HardRule(
            id=part.id,
            kind=part.kind,
            rule=rule,
            reason=part.reason,
            owner=part.owner or owner,
            actions=frozenset(part.actions) if part.actions else None,
        )

    def _parsed(
        self, path: Path_, text: str, types: Mapping[str, str], surface: str | None
    ) -> Rule | None:
        try:
            return parse(text, types)
        except RuleError as error:
            # What the rule reads may be an attribute whose own fault is told already.
            written = self._declared("surfaces", surface, "attributes") if surface else ()
            if not any(name in text for name in written if name not in types):
                self.source.fault(path, f"{error} (at character {error.position + 1})", text)
            return None

    # Policies ---------------------------------------------------------------------------------

    def _use_policy(self, path: Path_, policy: str, slot: str) -> None:
        if not self._refer(path, policy, self._declared("policies"), "policy"):
            return
        surface, _, slot_id = slot.partition(".")
        surface_part = self.parts.surfaces.get(surface)
        slot_part = surface_part.slots.get(slot_id) if surface_part else None
        if slot_part:
            self.policy_users.setdefault(policy, {})[slot] = slot_part

    def _policy(self, id_: str, part: PolicyPart) -> PolicySpec | None:
        path: Path_ = ("policies", id_)
        self._unknown_weights(path, id_, part)
        if not self._refer((*path, "kind"), part.kind, POLICY_KINDS, "kind of policy"):
            return None
        if part.draw == "sticky" and part.period is None:
            self.source.fault((*path, "period"), "is required by `draw: sticky`; add one, as 7d")
        if part.draw == "decision" and part.period is not None:
            self.source.fault((*path, "period"), "is only for `draw: sticky`; remove one of them")
        parameters = dict(part.model_extra or {})
        segments = self._segments(path, id_, part)
        if part.segments:
            parameters["segments"] = [{"id": s.id, "weights": s.weights} for s in part.segments]
        for fault in parameter_faults(part.kind, parameters):
            place = (*path, fault.name) if fault.name else path
            self.source.fault(place, fault.message, fault.value)
        self._rewarded(path, id_, part.kind)
        self._protecting(id_, part)
        self._reward_ranges(path, id_, part.kind, part)
        self._feature_names(path, id_, parameters)
        self._choosable(path, id_, part.kind, parameters)
        spec = PolicySpec(
            id=id_,
            kind=part.kind,
            parameters=parameters,
            learns=POLICY_KINDS[part.kind].learns,
            floor=part.floor,
            period_us=part.period if part.draw == "sticky" else None,
            salt=part.salt or id_,
            shared=part.shared,
            segments=segments,
            when=self._when(path, id_, part),
            abstain=part.abstain,
            conservative=self._conservative(path, id_, part),
        )
        if part.abstain and not (POLICY_KINDS[part.kind].learns and part.floor > 0):
            self.source.fault(
                (*path, "abstain"),
                "waits for what is learned, and the default alone teaches nothing of others; "
                "choose a kind that learns, and a `floor`",
                part.abstain,
            )
        if part.candidate is None:
            return spec
        return replace(spec, candidate=self._candidate(path, spec, part, part.candidate))

    def _candidate(
        self, path: Path_, spec: PolicySpec, part: PolicyPart, candidate: CandidatePart
    ) -> Candidate | None:
        path = (*path, "candidate")
        if not self._refer((*path, "kind"), candidate.kind, POLICY_KINDS, "kind of policy"):
            return None
        parameters = dict(candidate.model_extra or {})
        for fault in parameter_faults(candidate.kind, parameters):
            place = (*path, fault.name) if fault.name else path
            self.source.fault(place, fault.message, fault.value)
        if not POLICY_KINDS[candidate.kind].learns:
            self.source.fault(
                (*path, "kind"), "does not learn; name a kind that does", candidate.kind
            )
        if part.draw == "sticky":
            self.source.fault(
                path, "is judged choice by choice; set `draw: decision`, or compare the two as "
                "variants of an experiment"
            )  # fmt: skip
        self._rewarded(path, spec.id, candidate.kind)
        self._feature_names(path, spec.id, parameters)
        if candidate.mode == "shadow":
            self._reward_ranges(path, spec.id, candidate.kind, part)
            self._judgeable(path, spec.id)
        gate = candidate.gate
        return Candidate(
            policy=replace(spec, kind=candidate.kind, parameters=parameters, learns=True),
            mode=candidate.mode,
            gate=Gate(gate.alpha, gate.margin, gate.rows),
        )

    def _when(self, path: Path_, id_: str, part: PolicyPart) -> Rule | None:
        if part.when is None:
            return None
        return self._rule_everywhere((*path, "when"), id_, part.when)

    def _conservative(self, path: Path_, id_: str, part: PolicyPart) -> Conservative | None:
        asked = part.conservative
        if asked is None:
            return None
        path = (*path, "conservative")
        kind = part.candidate.kind if part.candidate else part.kind
        if not POLICY_KINDS[part.kind].learns and not (
            kind in POLICY_KINDS and POLICY_KINDS[kind].learns
        ):
            self.source.fault(path, "is for a kind that learns", part.kind)
        if part.draw == "sticky":
            self.source.fault(path, "counts decisions of their own; set `draw: decision`")
        for surface in sorted({slot.partition(".")[0] for slot in self.policy_users.get(id_, {})}):
            reach = _reach(self.parts.surfaces[surface])
            if reach is None or reach[0] < 0:
                self.source.fault(
                    path,
                    f'keeps a share of the default\'s reward, and that of surface "{surface}" may '
                    f"be {'anything' if reach is None else f'{reach[0]:g}'}; declare each metric's "
                    "`range`, and weigh it so that no reward is negative",
                )
        return Conservative(asked.alpha, asked.delta, asked.share)

    def _protecting(self, id_: str, part: PolicyPart) -> None:
        """What a policy may lose actions for must be seen of each action, and have a range."""
        if not POLICY_KINDS[part.kind].learns:
            return
        for surface in sorted({slot.partition(".")[0] for slot in self.policy_users.get(id_, {})}):
            guards = self.parts.surfaces[surface].guardrails
            for metric in sorted(m for m, guard in guards.items() if guard.protect):
                place: Path_ = ("surfaces", surface, "guardrails", metric, "protect")
                known = self.parts.surfaces[surface].metrics.get(metric)
                if known is not None and known.range is None:
                    self.source.fault(place, "needs the metric's `range`; declare it", True)
                if part.floor == 0 or part.draw == "sticky":
                    self.source.fault(
                        place,
                        f'needs a `floor` and `draw: decision` of policy "{id_}", by which each '
                        "action's harm is seen beside the default",
                        True,
                    )

    def _judgeable(self, path: Path_, id_: str) -> None:
        """What a gate compares must have a range, and a guardrail some room to be shown in."""
        for surface in sorted({slot.partition(".")[0] for slot in self.policy_users.get(id_, {})}):
            part = self.parts.surfaces[surface]
            for metric in sorted({*part.reward, *part.guardrails} & part.metrics.keys()):
                if part.metrics[metric].range is None:
                    self.source.fault(
                        ("surfaces", surface, "metrics", metric, "range"),
                        f"is required by `{'.'.join(map(str, path))}`, whose gate's intervals hold "
                        "whenever one looks only where the range is known; add it",
                    )
            for metric, guardrail in part.guardrails.items():
                if guardrail.margin == 0:
                    self.source.fault(
                        ("surfaces", surface, "guardrails", metric, "margin"),
                        f"is 0, and no log shows a metric not to be worse at all, as "
                        f"`{'.'.join(map(str, path))}` must; say how much worse it may be",
                        guardrail.margin,
                    )

    def _rewarded(self, path: Path_, id_: str, kind: str) -> None:
        """A policy that learns needs something to learn from on each surface it serves."""
        if not POLICY_KINDS[kind].learns:
            return
        surfaces = {slot.partition(".")[0] for slot in self.policy_users.get(id_, {})}
        for surface in sorted(surfaces):
            if not self._declared("surfaces", surface, "reward"):
                message = f'learns, and surface "{surface}" declares no `reward`; declare one'
                self.source.fault((*path, "kind"), message, kind)

    def _reward_ranges(self, path: Path_, id_: str, kind: str, part: PolicyPart) -> None:
        """A policy that learns from some rewards only must be sure to get no others."""
        bounds = POLICY_KINDS[kind].reward_range
        if bounds is None:
            return
        low, high = bounds
        for slot in self.policy_users.get(id_, {}):
            surface = self.parts.surfaces[slot.partition(".")[0]]
            ends = [
                sorted(weight * end for end in surface.metrics[metric].range or (-inf, inf))
                for metric, weight in surface.reward.items()
                if metric in surface.metrics
            ]
            least, most = sum(e[0] for e in ends), sum(e[1] for e in ends)
            if part.draw == "sticky" or not low <= least <= most <= high:
                what = "sums a period's rewards" if part.draw == "sticky" else "may leave it"
                self.source.fault(
                    (*path, "kind"),
                    f"learns from rewards in [{low:g}, {high:g}] only, and that of slot {slot} "
                    f"{what}; declare each metric's `range` and weigh it so, or choose another "
                    "kind, as thompson_gaussian",
                    kind,
                )

    def _segments(self, path: Path_, id_: str, part: PolicyPart) -> tuple[tuple[str, Rule], ...]:
        compiled = []
        for index, segment in enumerate(part.segments):
            rule = self._rule_everywhere((*path, "segments", index, "when"), id_, segment.when)
            if rule:
                compiled.append((segment.id, rule))
        return tuple(compiled)

    def _rule_everywhere(self, place: Path_, id_: str, text: str) -> Rule | None:
        """A policy's rule, which must be one on every surface that it serves."""
        surfaces = {slot.partition(".")[0] for slot in self.policy_users.get(id_, {})}
        rule: Rule | None = None
        for surface in sorted(surfaces):
            types = {n: a.type for n, a in self.parts.surfaces[surface].attributes.items()}
            rule = self._parsed(place, text, types, surface)
        if not surfaces:
            rule = self._parsed(place, text, {}, None)
        return rule

    def _feature_names(self, path: Path_, id_: str, parameters: Mapping[str, Any]) -> None:
        names = parameters.get("features")
        for slot, part in self.policy_users.get(id_, {}).items():
            surface = slot.partition(".")[0]
            known = [
                *self._declared("surfaces", surface, "attributes"),
                *map(slot_attribute, part.after),
            ]
            for index, name in enumerate(names if isinstance(names, list) else ()):
                if isinstance(name, str):
                    self._refer(
                        (*path, "features", index), name, known, f'attribute of surface "{surface}"'
                    )

    def _choosable(
        self, path: Path_, id_: str, kind: str, parameters: Mapping[str, object]
    ) -> None:
        """A kind that chooses some actions only must be able to choose those of every slot."""
        for slot, part in self.policy_users.get(id_, {}).items():
            for action, action_part in part.actions.items():
                with suppress(PolicyError):  # features that are no features are told of the action
                    value = Action(action, action_part.features)
                    if refusal := action_refusal(kind, parameters, value):
                        message = f'serves slot "{slot}", whose action "{action}" {refusal}'
                        self.source.fault((*path, "kind"), message, kind)
                        break

    def _unknown_weights(self, path: Path_, id_: str, part: PolicyPart) -> None:
        """Actions that a policy names must exist in every slot that it serves."""
        extra = part.model_extra or {}
        named: list[tuple[Path_, str]] = []
        for key in ("weights", "otherwise"):
            if isinstance(extra.get(key), Mapping):
                named += [((*path, key, a), a) for a in extra[key]]
        if isinstance(extra.get("action"), str):
            named.append(((*path, "action"), extra["action"]))
        for index, segment in enumerate(part.segments):
            named += [((*path, "segments", index, "weights", a), a) for a in segment.weights]
        for slot in self.policy_users.get(id_, {}):
            surface, _, slot_id = slot.partition(".")
            known = self._declared("surfaces", surface, "slots", slot_id, "actions")
            for place, action in named:
                self._refer(place, action, known, f'action of slot "{slot}"')

    # Experiments ------------------------------------------------------------------------------

    def _design(self) -> Design | None:
        experiments = []
        for layer, parts in self.parts.layers.items():
            for id_, part in parts.items():
                experiments.append(self._experiment(layer, id_, part))
        holdouts = []
        for id_, holdout in self.parts.holdouts.items():
            for index, surface in enumerate(holdout.surfaces or ()):
                self._refer(
                    ("holdouts", id_, "surfaces", index),
                    surface,
                    self._declared("surfaces"),
                    "surface",
                )
            holdouts.append(
                Holdout(
                    id_,
                    holdout.share,
                    frozenset(holdout.surfaces) if holdout.surfaces else None,
                    holdout.salt,
                )
            )
        try:
            return Design(tuple(holdouts), tuple(experiments))
        except ExperimentError as error:
            for path, value, message in error.faults:
                self.source.fault(tuple(path.split(".")), message, value)
            return None

    def _experiment(self, layer: str, id_: str, part: ExperimentPart) -> Experiment:
        path: Path_ = ("layers", layer, id_)
        variants = []
        for name, variant in part.variants.items():
            slots: dict[str, Pin | UsePolicy] = {}
            for slot, pin in variant.slots.items():
                place: Path_ = (*path, "variants", name, "slots", slot)
                # Stands in for a faulty use, so that the variant still decides a slot.
                slots[slot] = Pin("")
                if not self._slot_exists(place, slot):
                    continue
                if (pin.action is None) == (pin.policy is None):
                    self.source.fault(place, "must name either an action or {policy: …}")
                elif pin.policy is not None:
                    self._use_policy((*place, "policy"), pin.policy, slot)
                    slots[slot] = UsePolicy(pin.policy)
                elif pin.action is not None:
                    surface, _, slot_id = slot.partition(".")
                    known = self._declared("surfaces", surface, "slots", slot_id, "actions")
                    self._refer(place, pin.action, known, f'action of slot "{slot}"')
                    slots[slot] = Pin(pin.action)
            variants.append(Variant(name, variant.weight, slots))
        baseline = part.baseline
        if baseline is not None and not self._refer(
            (*path, "baseline"), baseline, part.variants, "variant"
        ):
            baseline = None
        return Experiment(
            id=id_,
            layer=layer,
            range=(part.range[0], part.range[1]),
            ramp=part.ramp,
            variants=tuple(variants),
            state=part.state,
            salt=part.salt,
            baseline=baseline,
        )

    def _slot_exists(self, path: Path_, slot: str) -> bool:
        known = [
            f"{surface}.{slot_id}"
            for surface in self._declared("surfaces")
            for slot_id in self._declared("surfaces", surface, "slots")
        ]
        return self._refer(path, slot, known, "slot")

    def _experiment_owners(self) -> dict[str, str]:
        owners = {}
        for parts in self.parts.layers.values():
            for id_, part in parts.items():
                slots = [slot for variant in part.variants.values() for slot in variant.slots]
                first = slots[0].partition(".")[0] if slots else next(iter(self.parts.surfaces))
                owners[id_] = part.owner or self.parts.surfaces[first].owner
        return owners

    # Learners ---------------------------------------------------------------------------------

    def _uses(self, surfaces: Mapping[str, Surface]) -> list[tuple[str, str, str | None]]:
        """Each (policy, ``surface.slot``, variant) that draws."""
        uses: list[tuple[str, str, str | None]] = [
            (slot.policy, slot.name, None)
            for surface in surfaces.values()
            for slot in surface.slots.values()
            if slot.policy
        ]
        for parts in self.parts.layers.values():
            for id_, part in parts.items():
                for name, variant in part.variants.items():
                    uses += [
                        (pin.policy, slot, f"{id_}.{name}")
                        for slot, pin in variant.slots.items()
                        if pin.policy
                    ]
        return uses

    def _learners(
        self, surfaces: Mapping[str, Surface], policies: Mapping[str, PolicySpec]
    ) -> dict[str, Learner]:
        learners = {}
        for policy_id, slot_name, scope in self._uses(surfaces):
            policy = policies[policy_id]
            if policy.learns:
                learner = _learner(policy, surfaces, slot_name, scope, "serve")
                learners[learner.id] = learner
        return learners

    def _candidates(
        self, surfaces: Mapping[str, Surface], policies: Mapping[str, PolicySpec]
    ) -> dict[str, Learner]:
        candidates = {}
        for policy_id, slot_name, scope in self._uses(surfaces):
            found = policies[policy_id].candidate
            if found is not None:
                learner = _learner(found.policy, surfaces, slot_name, scope, found.mode)
                candidates[learner.id] = learner
        return candidates


def _learner(
    policy: PolicySpec, surfaces: Mapping[str, Surface], slot: str, scope: str | None, mode: Mode
) -> Learner:
    surface, _, slot_id = slot.partition(".")
    asked = policy.conservative
    if asked is not None and mode != "apprentice":
        low, high = surfaces[surface].reward_range or (0.0, 1.0)
        default = surfaces[surface].slots[slot_id].default
        guarantee = Guarantee(default, asked.alpha, asked.delta, asked.share, low, high)
        policy = replace(policy, guarantee=guarantee)
    if surfaces[surface].protected and mode != "apprentice":
        policy = replace(policy, protections=_protections(policy, surfaces[surface], slot_id))
    spec = _spec(policy, surfaces[surface], slot_id, mode)
    return Learner(learner_id(policy, slot, scope), policy, surface, slot_id, spec, mode)


def _protections(policy: PolicySpec, surface: Surface, slot: str) -> Protections:
    count = len(surface.slots[slot].actions)
    metrics = tuple(
        Protection(
            guard.metric, 1.0 if guard.direction == "down" else -1.0, guard.margin,
            *surface.ranges.get(guard.metric, (0.0, 1.0)),
        )
        for guard in surface.protected
    )  # fmt: skip
    # Rounding of a stored pmf may lie a hair below what the floor guarantees.
    least = (policy.floor or 1.0) / count * (1 - 1e-9)
    return Protections(surface.slots[slot].default, metrics, PROTECTION_DELTA, least, count)


def _budget(part: BudgetPart) -> Budget:
    return Budget(
        part.id, frozenset(part.actions), part.limit, part.period, part.cost, part.pace,
        part.variant,
    )  # fmt: skip


def _reach(part: SurfacePart) -> tuple[float, float] | None:
    """The least and largest possible reward of a surface's decision; None where not known."""
    ends = []
    for metric, weight in part.reward.items():
        known = part.metrics.get(metric)
        if known is None or known.range is None:
            return None
        ends.append(sorted(weight * end for end in known.range))
    return sum(e[0] for e in ends), sum(e[1] for e in ends)


def _feature_types(path: Path_, source: Source, part: SlotPart) -> dict[str, str]:
    """The type of each action feature over the actions of a slot, which must agree."""
    names = {bool: "boolean", str: "string", int: "number", float: "number"}
    types: dict[str, str] = {}
    for action, action_part in part.actions.items():
        for feature, value in action_part.features.items():
            type_ = names[type(value)]
            if types.setdefault(feature, type_) != type_:
                source.fault(
                    (*path, "actions", action, "features", feature),
                    f"is a {type_}, but a {types[feature]} on another action; use one type",
                    value,
                )
    return types


def _spec(policy: PolicySpec, surface: Surface, slot: str, mode: Mode) -> str:
    """Digest of all that a learner's snapshots depend on beside the log.

    A shadow learns what it would learn if it served, so its snapshots are those of that policy.
    """
    metrics = {
        name: [m.window_us, m.maturity_us, m.aggregate, m.default, surface.reward[name]]
        for name, m in surface.metrics.items()
        if name in surface.reward
    }
    content: dict[str, object] = {
        "kind": policy.kind,
        "parameters": policy.parameters,
        "metrics": metrics,
        "period_us": policy.period_us,
    }
    if mode == "apprentice":
        content["mode"] = mode
    if policy.protections is not None:
        content["protections"] = to_builtins(policy.protections)
        content["horizon_us"] = surface.learning_horizon_us
    if policy.guarantee is not None:
        content["guarantee"] = {**asdict(policy.guarantee), "floor": policy.floor}
    if surface.slots[slot].after:
        content["after"] = sorted(surface.slots[slot].after)
    return hashlib.sha256(canonical(content)).hexdigest()[:16]
