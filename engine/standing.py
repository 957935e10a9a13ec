"""What serves for a learner: its declared policy, or what its history of promotions put there.

A history is a list of steps, oldest first. An ``attempt`` was judged and changed nothing.
``promote`` had the candidate's lineage serve; ``pin`` holds what serves at one snapshot; ``undo``
put back what served before the last of these that still stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import NotFoundError, RequestError
from engine.log import PromotionEntry, Step
from engine.store import PromotionRow
from engine.workspace import Learner, Workspace


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose lineage serves; None where a policy does that never learns.

    ``promoted`` says that it is the candidate's. ``pinned`` is the digest of the snapshot at which
    it is held; None where the newest serves.
    """

    learner: Learner | None
    promoted: bool = False
    pinned: str | None = None


def standing(workspace: Workspace, id_: str, history: Sequence[PromotionRow]) -> Standing:
    """What serves under a workspace. A step to what is no longer declared has no force."""
    declared, candidate = workspace.learners.get(id_), workspace.candidates.get(id_)
    changes = [row for row in history if row.what != "attempt"]
    if changes and changes[-1].spec is not None:
        spec, pinned = changes[-1].spec, changes[-1].snapshot
        if candidate is not None and candidate.mode == "shadow" and spec == candidate.spec:
            return Standing(candidate, promoted=True, pinned=pinned)
        if declared is not None and spec == declared.spec:
            return Standing(declared, pinned=pinned)
    return Standing(declared)


def rolled_back(
    workspace: Workspace, id_: str, history: Sequence[PromotionRow], now_us: int
) -> PromotionEntry:
    """The step that puts back what served before the last promotion or pin that still stands.

    Raises
    ------
    NotFoundError
        If the workspace has no such learner.
    RequestError
        If nothing stands that could be undone.
    """
    check_learner(workspace, id_)
    before: list[tuple[str | None, str | None]] = [(None, None)]
    for row in history:
        if row.what in ("promote", "pin"):
            before.append((row.spec, row.snapshot))
        elif row.what == "undo":
            before.pop()
    if len(before) == 1:
        raise RequestError(
            "learner",
            f'"{id_}" serves as it is declared, nothing was promoted; '
            "to go back to an earlier snapshot, name it with `to`",
        )
    return step("undo", id_, before[-2], history, now_us)


def step(
    what: Step,
    id_: str,
    to: tuple[str | None, str | None],
    history: Sequence[PromotionRow],
    now_us: int,
) -> PromotionEntry:
    """The next step of a history: which spec serves from now on, held at which snapshot."""
    return PromotionEntry(
        learner=id_,
        what=what,
        spec=to[0],
        snapshot=to[1],
        judged_until=judged_until(history),
        at=now_us,
        report="{}",
        after=history[-1].seq if history else 0,
    )


def check_learner(workspace: Workspace, id_: str) -> None:
    """Raises NotFoundError where the workspace has no such learner."""
    known = sorted({*workspace.learners, *workspace.candidates})
    if id_ not in known:
        listed = ", ".join(known) or "none"
        raise NotFoundError("learner", f'is "{id_[:300]}", which is none; known: {listed}')


def judged_until(history: Sequence[PromotionRow]) -> int:
    """When the last choice closed that a candidate was judged by; −1 before any was."""
    return max((row.judged_until for row in history), default=-1)
