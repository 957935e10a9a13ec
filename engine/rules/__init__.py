"""The rule language: a restricted CEL, three-valued, with a verdict for each clause.

``parse`` reads a rule once; ``Rule.evaluate`` then takes a few microseconds. The language is
described in ``docs/rules.md``.
"""

from engine.rules.rule import Evaluation, Rule, parse
from engine.rules.values import ATTRIBUTE_TYPES

__all__ = ["ATTRIBUTE_TYPES", "Evaluation", "Rule", "parse"]
