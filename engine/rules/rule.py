"""A rule, ready to be evaluated, and what an evaluation says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.rules.compiler import Evaluator, compile_tree
from engine.rules.parser import parse_tree
from engine.rules.tree import Node


class Evaluation(NamedTuple):
    """What a rule says of some attributes.

    ``verdict`` is True, False, or None where the attributes do not decide: whoever asks must then
    fail closed. ``clauses`` has one character for each of ``Rule.clauses``: "T", "F", "U" for
    unknown, "-" for a clause that was not reached because the verdict was settled before it.
    """

    verdict: bool | None
    clauses: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was read without fault; made by ``parse``.

    ``clauses`` holds the source of each clause in source order, ``attributes`` the dotted names
    that the rule reads. ``reads_action`` says that it depends on the action, so that each action
    needs its own evaluation. ``tree`` is what the text says, for evaluators of other kinds.
    """

    text: str
    clauses: tuple[str, ...]
    attributes: frozenset[str]
    tree: Node = field(repr=False, compare=False)
    _evaluator: Evaluator = field(repr=False, compare=False)
    reads_action: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        reads = any(name == "action" or name.startswith("action.") for name in self.attributes)
        object.__setattr__(self, "reads_action", reads)

    def evaluate(self, attributes: Mapping[str, object]) -> Evaluation:
        """The verdict on ``attributes`` and on each clause; raises nothing.

        ``attributes`` maps dotted names to None, bool, int, float, str, datetime with a zone, or a
        list or tuple of these; a dict holds the rest of a dotted name. Anything else, NaN and
        integers beyond 64 bits are unknown.
        """
        trace = ["-"] * len(self.clauses)
        verdict = self._evaluator(attributes, trace)
        return Evaluation(verdict, "".join(trace))


def parse(text: str, attributes: Mapping[str, str] | None = None) -> Rule:
    """Reads a rule, refusing whatever could never hold.

    >>> rule = parse('weeks >= 1 && country in ["DE", "FR"]')
    >>> rule.evaluate({"weeks": 3})
    Evaluation(verdict=None, clauses='TU')

    Parameters
    ----------
    text
        At most 4,000 characters, 64 clauses, 32 nested parentheses, 1,000 elements in a list.
    attributes
        The type of each attribute by its dotted name, one of ``ATTRIBUTE_TYPES``; those of the
        action are named ``action.<feature>``. A value of another type than the declared one is
        then unknown, and null is an absence. None declares nothing: every name is allowed and
        types are compared as the values come, which is CEL without its type checker.

    Raises
    ------
    RuleError
        At the first fault, with its ``position``: text outside the language or its bounds, an
        undeclared attribute, a comparison that no value of the declared types satisfies.
    """
    tree, clauses, paths = parse_tree(text, attributes)
    return Rule(text, clauses, paths, tree, compile_tree(tree))
