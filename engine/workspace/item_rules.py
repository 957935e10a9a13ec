"""Rules of slates in the workspace's language, as the recommender asks them of its items."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from engine.rules import Rule
from engine.rules.columns import ITEM, ColumnEvaluator, compile_columns
from recsys.call import Call
from recsys.catalogue import Catalogue, Rows
from recsys.rules import RuleKind, Verdicts


@dataclass(frozen=True)
class ItemRule:
    """A compiled rule over items, with its owner and the reason that operators read.

    The rule reads attributes of items as ``item.<name>``, all others from the call's context.
    """

    id: str
    kind: RuleKind
    rule: Rule
    reason: str
    owner: str
    amount: float = 0.0
    reads: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = (name.removeprefix(ITEM) for name in self.rule.attributes if name.startswith(ITEM))
        object.__setattr__(self, "reads", frozenset(names))

    @cached_property
    def _evaluator(self) -> ColumnEvaluator:
        return compile_columns(self.rule.tree, len(self.rule.clauses))

    def verdicts(self, catalogue: Catalogue, rows: Rows, call: Call) -> Verdicts:
        """(m,), 1 where the rule is true of an item, 0 where it is false, -1 where unknown."""
        return self._evaluator(catalogue, rows, call.context)
