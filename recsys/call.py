"""What a caller says when it asks for a slate: `recsys` knows nothing of a user but this."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal, get_args

import msgspec

from recsys.errors import RecsysError

SlateKind = Literal[
    "for_you",
    "because_you",
    "similar",
    "alternatives",
    "accessories",
    "bundles",
    "replenishment",
    "editorial",
]
SLATE_KINDS: tuple[SlateKind, ...] = get_args(SlateKind)

LARGEST_K = 1000

PERSONALISATION = "personalisation"
"""The consent without which a history chooses no candidate: it only keeps items out."""


class Interaction(msgspec.Struct, frozen=True):
    """Something that a user did with an item.

    Parameters
    ----------
    kind
        What was done, in the caller's words: "view", "purchase", "return", "finish".
    at
        Microseconds since 1970, UTC.
    value
        How much of it: a rating, a quantity, a share watched.
    """

    item_id: str
    kind: str
    at: int
    value: float = 1.0

    def __post_init__(self) -> None:
        if not self.item_id or not self.kind:
            raise RecsysError(
                f"interaction has item_id {self.item_id!r} and kind {self.kind!r}. Name both."
            )
        if not math.isfinite(self.value):
            raise RecsysError(
                f"interaction.value of {self.item_id!r} is {self.value!r}. Give a finite number."
            )


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a slate, with all that is known of the user.

    Parameters
    ----------
    slate
        The id of the plan to fill.
    k
        How many items, 1 to 1000.
    now
        Microseconds since 1970, UTC; what happened later counts as happening now.
    history
        Oldest first.
    owned
        Ids of items that the user has.
    exclude
        Ids of items that must not be shown.
    seeds
        Ids of the items being looked at, the most important first.
    filters
        Values that an item's attributes must have.
    consents
        What the user agreed to; what is not named counts as agreed.
    uniforms
        k numbers in [0, 1): position j is drawn with the j-th. Empty: no exploration.

    Raises
    ------
    RecsysError
        If any of them is not of that form.
    """

    user_id: str
    surface: str
    slate: str
    k: int
    now: int
    trace_id: str
    context: dict[str, Any] = {}
    history: tuple[Interaction, ...] = ()
    owned: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    filters: dict[str, Any] = {}
    consents: dict[str, bool] = {}
    uniforms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("user_id", "surface", "slate", "trace_id"):
            if not getattr(self, name):
                raise RecsysError(f"call.{name} is empty. Name it.")
        if isinstance(self.k, bool) or not 1 <= self.k <= LARGEST_K:
            raise RecsysError(f"call.k is {self.k!r}. Ask for 1 to {LARGEST_K} items.")
        times = [interaction.at for interaction in self.history]
        if any(later < earlier for earlier, later in pairwise(times)):
            raise RecsysError("call.history is not in order of time. Give the oldest first.")
        if self.uniforms and len(self.uniforms) != self.k:
            raise RecsysError(
                f"call.uniforms has {len(self.uniforms)} numbers for k = {self.k}. Give one for "
                "each position, or none."
            )
        for uniform in self.uniforms:
            if not 0.0 <= uniform < 1.0:
                raise RecsysError(f"call.uniforms holds {uniform!r}. Give numbers in [0, 1).")

    @property
    def personal(self) -> bool:
        """Whether the history may choose candidates."""
        return self.consents.get(PERSONALISATION, True)
