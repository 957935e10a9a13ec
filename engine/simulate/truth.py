"""What policies and variants are worth in a world, exactly: sums over all that can happen.

Metrics are made of responses by ``attribution.metrics``, as learning and reports make them, so
windows, lateness and defaults are part of the truth.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from attribution.metrics import MetricSpec, OutcomeEvent, counts, metric_value
from engine.decide import Inputs, Model, Serving, decide
from engine.errors import NotFoundError, ReportError
from engine.learning import features
from engine.models import fresh, static_models
from engine.record import DecisionRecord
from engine.request import DecideRequest
from engine.rewards import reward
from engine.simulate.world import Responses, Situation, Visit, World
from engine.workspace import Surface, Workspace
from experiments import Design, Experiment, assign
from policies import Action, Context, FloatArray

Pmf = Callable[[Context, Sequence[Action]], FloatArray]
"""A target: (k,) probabilities of the eligible actions, as ``Policy.pmf`` gives them."""

_NO_ID = "00000000-0000-7000-8000-000000000000"
_Shown = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class UnitLift:
    """Mean of a metric over ``units`` units, had all of them the variant, or all the baseline."""

    units: int
    mean: float
    baseline_mean: float

    @property
    def difference(self) -> float:
        """The lift, in the metric's unit."""
        return self.mean - self.baseline_mean


@dataclass(frozen=True, slots=True)
class _Case:
    """A situation as a slot meets it: what each eligible action is expected to earn there."""

    probability: float
    context: Context
    actions: tuple[Action, ...]
    expected: tuple[float, ...]


def untaught(workspace: Workspace) -> Serving:
    """The workspace as it serves before anything was learned, without a store."""
    taught = {learner.id: Model(fresh(learner.policy)) for learner in workspace.learners.values()}
    return Serving(workspace, taught | static_models(workspace))


class Truth:
    """The values of a world under the policies of ``serving``, its models held as they are.

    Raises
    ------
    ReportError
        If a slot comes after another: the sums here take slots to be drawn independently.
    """

    def __init__(self, world: World, serving: Serving) -> None:
        for surface in serving.workspace.surfaces.values():
            if any(slot.after for slot in surface.slots.values()):
                raise ReportError(
                    f'surface "{surface.id}" has slots that come after others, whose values are '
                    "not worked out; ask for those of a workspace without `after`"
                )
        self._world = world
        self._serving = serving
        self._expected = lru_cache(maxsize=None)(self._expected_anew)
        self._cases = lru_cache(maxsize=None)(self._cases_anew)

    def policy_value(
        self, surface: str, slot: str, target: str | Pmf, metric: str | None = None
    ) -> float:
        """Expected reward of a decision, or of one metric, if ``target`` chose in ``slot``.

            V = Σ_s P(s) Σ_a π(a|s) Σ_o P(o|s) E[reward | s, a, o]

        over situations s, the slot's eligible actions a, and the actions o of the other slots,
        chosen by their declared policies or defaults outside of holdouts and experiments.

        Parameters
        ----------
        target
            A pmf over the eligible actions, exploration floor included, or an action: the slot's
            default is then served where the rules close it.

        Raises
        ------
        NotFoundError
            If the surface, slot, action or metric is not declared.
        """
        default = self._slot_default(surface, slot, target)
        total = 0.0
        for case in self._cases(surface, slot, metric):
            if isinstance(target, str):
                ids = [action.id for action in case.actions]
                value = case.expected[ids.index(target if target in ids else default)]
            elif len(case.actions) == 1:
                value = case.expected[0]
            else:
                pmf = target(case.context, case.actions)
                value = math.fsum(p * e for p, e in zip(pmf.tolist(), case.expected, strict=True))
            total += case.probability * value
        return total

    def best_value(self, surface: str, slot: str) -> float:
        """Expected reward of a decision under the best policy that reads the whole context.

        Kinds of viewers that a context cannot tell apart share an action.
        """
        by_context: defaultdict[tuple[object, ...], list[_Case]] = defaultdict(list)
        for case in self._cases(surface, slot, None):
            key = (*sorted(case.context.items()), *(action.id for action in case.actions))
            by_context[key].append(case)
        return math.fsum(
            max(
                math.fsum(case.probability * case.expected[a] for case in cases)
                for a in range(len(cases[0].actions))
            )
            for cases in by_context.values()
        )

    def lift(self, experiment: str, variant: str, metric: str, days: int) -> UnitLift:
        """What ``variant`` does to a unit's metric against the experiment's baseline.

        The units are those that the experiment enrols in ``days`` days of visits, as ``run`` lives
        and settles them: an average over these very units, not over all that might have come. A
        unit's metric is the aggregate of its outcomes within the window from its first assignment,
        as in the lift report. Its expectation is taken over outcomes and the draws of policies;
        holdouts and other experiments assign as they do. Draws of different visits count as
        independent, so a sticky policy's effect is exact where no two of its visits fall into one
        window.

        Raises
        ------
        NotFoundError
            If experiment, variant or metric is not declared.
        ReportError
            If the metric's aggregate is not max, min or sum, or no unit is enrolled.
        """
        design = self._serving.workspace.design
        known = {e.id: e for e in design.experiments}
        if experiment not in known or variant not in {v.id for v in known[experiment].variants}:
            raise NotFoundError("experiment", f'has no "{experiment}" with variant "{variant}"')
        chosen = known[experiment]
        spec = self._metric(metric)
        units = list(self._enrolled(chosen, days))
        if not units:
            raise ReportError(f"{experiment} enrols no unit within {days} days")
        means = [
            math.fsum(self._unit_mean(visits, start, spec, forced) for start, visits in units)
            / len(units)
            for forced in (
                self._all_in(chosen, variant),
                self._all_in(chosen, chosen.baseline_variant),
            )
        ]
        return UnitLift(len(units), means[0], means[1])

    # A decision -------------------------------------------------------------------------------

    def _slot_default(self, surface: str, slot: str, target: str | Pmf) -> str:
        surfaces = self._serving.workspace.surfaces
        if surface not in surfaces or slot not in surfaces[surface].slots:
            raise NotFoundError("slot", f'is "{surface}.{slot}", which is not declared')
        declared = surfaces[surface].slots[slot]
        if isinstance(target, str) and target not in declared.actions:
            raise NotFoundError(
                "target", f'is "{target}"; known actions: {", ".join(declared.action_ids)}'
            )
        return declared.default

    def _cases_anew(self, surface: str, slot: str, metric: str | None) -> tuple[_Case, ...]:
        """Every situation of the surface with the expected reward of each eligible action."""
        free = _with_design(self._serving, Design())
        declared = free.workspace.surfaces[surface]
        if metric is not None and metric not in declared.metrics:
            raise NotFoundError("metric", f'is "{metric}", which {surface} does not declare')
        cases = []
        for situation, probability in self._world.situations(surface).items():
            request = DecideRequest(surface, user_id="any", context=dict(situation.context))
            record = _peek(free, request, self._world.midnight(0))
            others = list(_combinations(record, without=slot))
            eligible = next(c.eligible for c in record.choices if c.slot == slot)
            earned = [
                math.fsum(
                    p * self._worth(declared, situation, (*shown, (slot, action)), metric)
                    for p, shown in others
                )
                for action in eligible
            ]
            cases.append(
                _Case(
                    probability,
                    features(record, declared, slot),
                    tuple(declared.slots[slot].actions[a] for a in eligible),
                    tuple(earned),
                )
            )
        return tuple(cases)

    def _worth(
        self, surface: Surface, situation: Situation, shown: _Shown, metric: str | None
    ) -> float:
        responses = self._world.responses(surface.id, situation, dict(shown))
        values = self._expected(surface.id, responses)
        return reward(surface, values) if metric is None else values[metric]

    def _expected_anew(self, surface: str, responses: Responses) -> Mapping[str, float]:
        """The expectation of each metric of a decision."""
        values = {}
        for name, spec in self._serving.workspace.surfaces[surface].metrics.items():
            distribution = responses.by_metric.get(name, ((1.0, None),))
            values[name] = math.fsum(
                p
                * metric_value(
                    spec,
                    0,
                    [OutcomeEvent(r.after_us, r.after_us + r.news_us, r.value)] if r else [],
                )
                for p, r in distribution
            )
        return values

    # A unit -----------------------------------------------------------------------------------

    def _metric(self, name: str) -> MetricSpec:
        found = [
            surface.metrics[name]
            for surface in self._serving.workspace.surfaces.values()
            if name in surface.metrics
        ]
        if not found:
            raise NotFoundError("metric", f'is "{name}", which no surface declares')
        if found[0].aggregate not in {"max", "min", "sum"}:
            raise ReportError(f"{name} is a {found[0].aggregate}; exact are max, min and sum")
        return found[0]

    def _enrolled(self, experiment: Experiment, days: int) -> Iterator[tuple[int, list[Visit]]]:
        """Of each unit that the experiment enrols, its first assignment and all its visits."""
        design = self._serving.workspace.design
        visits: defaultdict[str, list[Visit]] = defaultdict(list)
        started: dict[str, int] = {}
        for day in range(days):
            for visit in self._world.visits(day):
                unit = visit.request().unit
                visits[unit].append(visit)
                if unit not in started and any(
                    a.id == experiment.id for a in assign(design, unit, visit.surface)
                ):
                    started[unit] = visit.at_us
        for unit, start in started.items():
            yield start, visits[unit]

    def _all_in(self, experiment: Experiment, variant: str) -> Callable[[Visit], _Choices]:
        """The choices of a visit if every enrolled unit had the variant, by what they turn on."""
        only = replace(
            experiment,
            variants=tuple(v for v in experiment.variants if v.id == variant),
            baseline=variant,
        )
        before = self._serving.workspace.design
        design = Design(
            before.holdouts, tuple(only if e.id == only.id else e for e in before.experiments)
        )
        forced = _with_design(self._serving, design)
        known: dict[object, _Choices] = {}

        def choices(visit: Visit) -> _Choices:
            request = visit.request()
            paths = tuple((a.id, a.variant) for a in assign(design, request.unit, visit.surface))
            key = (visit.surface, visit.situation.context, paths)
            if key not in known:
                known[key] = tuple(_combinations(_peek(forced, request, visit.at_us)))
            return known[key]

        return choices

    def _unit_mean(
        self,
        visits: Sequence[Visit],
        start: int,
        spec: MetricSpec,
        choices: Callable[[Visit], _Choices],
    ) -> float:
        """E of the unit's metric: the distribution of the aggregate so far, visit by visit.

        Times are counted from ``start``. As max, min and sum are associative, the aggregate so
        far stands for the events that it was made of.
        """
        sofar: dict[float | None, float] = {None: 1.0}
        for visit in visits:
            offset = visit.at_us - start
            if offset > spec.window_us:
                break
            adds = self._adds(visit, offset, spec, choices(visit))
            merged: defaultdict[float | None, float] = defaultdict(float)
            for (a, p), (b, q) in product(sofar.items(), adds.items()):
                merged[_joined(spec, a, b)] += p * q
            sofar = merged
        return math.fsum(p * (spec.default if v is None else v) for v, p in sofar.items())

    def _adds(
        self, visit: Visit, offset: int, spec: MetricSpec, choices: _Choices
    ) -> dict[float | None, float]:
        """The distribution of what a visit adds to its unit's metric; None: nothing counted."""
        adds: defaultdict[float | None, float] = defaultdict(float)
        for probability, shown in choices:
            responses = self._world.responses(visit.surface, visit.situation, dict(shown))
            for p, r in responses.by_metric.get(spec.name, ((1.0, None),)):
                value = None
                if r is not None:
                    occurred = offset + r.after_us
                    event = OutcomeEvent(occurred, occurred + r.news_us, r.value)
                    value = r.value if counts(spec, 0, event) else None
                adds[value] += probability * p
        return adds


_Choices = tuple[tuple[float, _Shown], ...]


def _joined(spec: MetricSpec, a: float | None, b: float | None) -> float | None:
    events = [OutcomeEvent(0, 0, value) for value in (a, b) if value is not None]
    return metric_value(spec, 0, events) if events else None


def _with_design(serving: Serving, design: Design) -> Serving:
    return Serving(replace(serving.workspace, design=design), serving.models)


def _peek(serving: Serving, request: DecideRequest, now_us: int) -> DecisionRecord:
    return decide(serving, request, Inputs(), decision_id=_NO_ID, now_us=now_us)


def _combinations(
    record: DecisionRecord, without: str | None = None
) -> Iterator[tuple[float, _Shown]]:
    """Every combination of the slots' actions with its probability under their pmfs."""
    slots = [
        [
            (p, (choice.slot, action))
            for p, action in (
                zip(choice.pmf, choice.eligible, strict=True)
                if choice.pmf is not None
                else ((1.0, choice.action),)
            )
            if p > 0
        ]
        for choice in record.choices
        if choice.slot != without
    ]
    for combination in product(*slots):
        yield math.prod(p for p, _ in combination), tuple(shown for _, shown in combination)
