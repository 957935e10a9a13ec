"""Explaining a slate: what was proposed, which rule kept out what, and what moved what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.record import SlateRecord
from engine.workspace import ItemRule, Slate
from recsys import Slate as Filled


def explained(
    filled: Filled, declared: Slate | None, fillings: Mapping[str, SlateRecord]
) -> dict[str, Any]:
    """A slate as JSON data, with how it came about as far as the record says.

    ``removed`` has each rule that kept candidates out, and those of which it could not tell;
    ``withheld`` counts what rules keep out of the whole catalogue, where that was asked.
    ``explained`` tells of each item shown what made its place.
    """
    document: dict[str, Any] = msgspec.to_builtins(filled)
    filling = next((f for f in fillings.values() if f.trace.trace_id == filled.trace_id), None)
    if filling is None:
        return document
    trace = filling.trace
    removals, unknown = trace.removals(), trace.unknown()
    reasons = {removal.rule: removal.reason for removal in trace.removed}
    by_rule: dict[str, list[str]] = {}
    for item_id, rules in removals.items():
        for rule in rules:
            by_rule.setdefault(rule, []).append(item_id)
    return document | {
        "kind": trace.kind,
        "objective": trace.objective,
        "owner": declared.owner if declared else None,
        "recommender": filling.recommender,
        "fallback": filling.fallback,
        "versions": trace.versions,
        "history": filling.history,
        "stale": list(filling.stale),
        "candidates": len(trace.items),
        "removed": [
            {
                "rule": rule,
                "reason": reasons.get(rule, "the limit is reached"),
                **_written(declared, rule),
                "items": items,
                "unknown": [item_id for item_id in items if rule in unknown.get(item_id, ())],
            }
            for rule, items in by_rule.items()
        ],
        "withheld": trace.withheld,
        "explained": msgspec.to_builtins(trace.placed),
        "exploration": msgspec.to_builtins(trace.composing.exploration),
        "uniforms": list(trace.uniforms),
        "timings_ms": {stage: 1e3 * seconds for stage, seconds in filling.timings.items()},
    }


def _written(declared: Slate | None, id_: str) -> dict[str, str]:
    """The text and owner of a rule that the workspace has one for."""
    rule: ItemRule | None = declared.rules.get(id_) if declared else None
    return {"when": rule.rule.text, "owner": rule.owner} if rule else {}
