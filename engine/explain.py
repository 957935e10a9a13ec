"""Explaining a decision: its record with every rule's clauses spelt out, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.decide import GUARDRAIL, WHEN
from engine.errors import NotFoundError
from engine.explain_slates import explained
from engine.ids import rfc3339
from engine.record import ChoiceRecord, DecisionRecord, decode_record, fillings_of
from engine.revisions import Revisions
from engine.rules import Rule
from engine.store import Store
from engine.store import read as ask
from engine.workspace import HardRule, PolicySpec, Slot, Surface

_VERDICTS = {"T": "true", "F": "false", "U": "unknown", "-": "not reached"}


def explain(store: Store, revisions: Revisions, decision_id: str) -> dict[str, Any]:
    """The whole record of a decision, its rules' verdicts by clause, exposures and outcomes.

    Plain JSON data. Times are RFC 3339.

    Raises
    ------
    NotFoundError
        If the decision is not stored.
    """
    stored = store.read(lambda c: ask.decision(c, decision_id))
    if stored is None:
        raise NotFoundError("decision_id", f'"{decision_id}" is no stored decision')
    record = decode_record(stored.data)
    workspace = revisions.get(record.revision)
    surface = workspace.surfaces[record.surface]
    document: dict[str, Any] = msgspec.to_builtins(record)
    document["decided_at"] = rfc3339(record.decided_at)
    document["committed_at"] = rfc3339(stored.committed_at)
    document["void"] = stored.void
    document["owner"] = surface.owner
    for choice, shown in zip(record.choices, document["choices"], strict=True):
        shown["path_probability"] = choice.path_probability
        slot = surface.slots[choice.slot]
        shown["rules"] = [
            *_rules(surface.rules, slot, choice, record.verdicts),
            *_rules(slot.rules, slot, choice, choice.verdicts),
        ]
        told = choice.verdicts.get(WHEN)
        if isinstance(told, str) and choice.policy is not None:
            shown["when"] = _when(workspace.policies[choice.policy], told)
        shown["guardrails"] = {
            name.removeprefix(GUARDRAIL): list(actions)
            for name, actions in choice.verdicts.items()
            if name.startswith(GUARDRAIL)
        }
        del shown["verdicts"]
        if shown["draw"] and choice.draw and choice.draw.expires_at:
            shown["draw"]["expires_at"] = rfc3339(choice.draw.expires_at)
    del document["verdicts"]
    document.pop("fillings", None)
    document["slates"] = {
        id_: explained(slate, revisions.get(record.revision).slates.get(id_), fillings_of(record))
        for id_, slate in record.slates.items()
    }
    document["exposures"] = [
        {
            "slot": row.slot,
            "occurred_at": rfc3339(row.occurred_at),
            "received_at": rfc3339(row.received_at),
        }
        for row in store.read(lambda c: ask.exposures(c, decision_id))
    ]
    document["outcomes"] = _outcomes(store, surface, record)
    return document


def _rules(
    rules: Sequence[HardRule],
    slot: Slot,
    choice: ChoiceRecord,
    verdicts: Mapping[str, str | dict[str, str]],
) -> list[dict[str, Any]]:
    """Each rule with its reason, owner, verdict by clause, and the actions it removed."""
    shown = []
    for rule in rules:
        told = verdicts.get(rule.id)
        if told is None:
            continue
        covered = [a for a in choice.candidates if a in (rule.actions or slot.covered)]
        entry: dict[str, Any] = {
            "id": rule.id,
            "kind": rule.kind,
            "reason": rule.reason,
            "owner": rule.owner,
            "when": rule.rule.text,
        }
        if isinstance(told, Mapping):
            entry["by_action"] = {a: _verdict(rule, text) for a, text in told.items()}
            entry["removed"] = [a for a, text in told.items() if not _allows(rule, text)]
        else:
            entry |= _verdict(rule, told)
            entry["removed"] = [] if _allows(rule, told) else covered
        shown.append(entry)
    return shown


def _when(policy: PolicySpec, told: str) -> dict[str, Any] | None:
    """A policy's own condition, clause by clause."""
    if policy.when is None:
        return None
    return {"when": policy.when.text, **_clauses(policy.when, told)}


def _verdict(rule: HardRule, text: str) -> dict[str, Any]:
    return _clauses(rule.rule, text)


def _clauses(rule: Rule, text: str) -> dict[str, Any]:
    return {
        "verdict": _VERDICTS[text[0]],
        "clauses": [
            {"clause": clause, "verdict": _VERDICTS[letter]}
            for clause, letter in zip(rule.clauses, text[1:], strict=True)
        ],
    }


def _allows(rule: HardRule, text: str) -> bool:
    return rule.allows({"T": True, "F": False}.get(text[0]))


def _outcomes(store: Store, surface: Surface, record: DecisionRecord) -> list[dict[str, Any]]:
    """Outcomes that name the decision, or its unit within the longest window."""
    end = record.decided_at + max((m.window_us for m in surface.metrics.values()), default=0)
    own = store.read(lambda c: ask.outcomes_of_decisions(c, [record.decision_id]))
    of_unit = store.read(lambda c: ask.outcomes_of_units(c, [record.unit], record.decided_at, end))
    shown = []
    for outcome in sorted([*own, *of_unit], key=lambda o: (o.occurred_at, o.outcome_id)):
        spec = surface.metrics.get(outcome.metric)
        late = spec is not None and outcome.received_at > record.decided_at + spec.maturity_us
        shown.append(
            {
                "outcome_id": outcome.outcome_id,
                "metric": outcome.metric,
                "value": outcome.value,
                "occurred_at": rfc3339(outcome.occurred_at),
                "received_at": rfc3339(outcome.received_at),
                "by": "decision" if outcome.decision_id else "unit",
                "corrects": outcome.corrects,
                "item_id": outcome.item_id,
                "late": late,
            }
        )
    return shown
