"""Ranked lists: the values that a recommender answers with and a decision records."""

from recsys.slate import Slate, SlateItem

__all__ = ["Slate", "SlateItem"]
