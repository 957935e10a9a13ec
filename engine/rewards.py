"""The reward of a decision: its outcomes made metrics, and these one number by declared weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from attribution.metrics import OutcomeEvent, matures_at, metric_value
from engine.log import Outcome
from engine.workspace import Surface


def effective(outcomes: Iterable[Outcome], until_us: int) -> list[Outcome]:
    """The outcomes received by ``until_us``, with the values that later ones correct.

    A correction replaces the value of the outcome that it names and keeps that one's time; of
    several the last received holds, of those received at once the last given. A correction of an
    outcome that is not among those given says nothing here.
    """
    standing: dict[str, Outcome] = {}
    corrections: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda o: o.received_at):
        if outcome.received_at > until_us:
            continue
        if outcome.corrects is None:
            standing[outcome.outcome_id] = outcome
        else:
            corrections.append(outcome)
    names = {id_: id_ for id_ in standing}
    for correction in corrections:
        original = names.get(correction.corrects or "")
        if original is not None:
            names[correction.outcome_id] = original
            standing[original] = replace(standing[original], value=correction.value)
    return list(standing.values())


def metric_values(
    surface: Surface, decided_at: int, outcomes: Sequence[Outcome], metrics: Iterable[str]
) -> dict[str, float]:
    """Each metric of a decision from the outcomes that are its own or its unit's.

    An outcome counts as DESIGN §5 has it: occurred within the window, received by the window and
    the declared lateness. A metric without outcomes has its declared default.
    """
    values = {}
    for name in metrics:
        spec = surface.metrics[name]
        mine = [o for o in outcomes if o.metric == name]
        events = [
            OutcomeEvent(o.occurred_at, o.received_at, o.value)
            for o in effective(mine, matures_at(spec, decided_at))
        ]
        values[name] = metric_value(spec, decided_at, events)
    return values


def reward(surface: Surface, values: Mapping[str, float]) -> float:
    """The declared weighted sum of a decision's metrics."""
    return sum(weight * values[name] for name, weight in surface.reward.items())
