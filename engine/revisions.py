"""Revisions as stored: a workspace by its digest, compiled once and kept."""

from __future__ import annotations

from functools import lru_cache

from engine.errors import ConfigurationError, EngineError, Fault
from engine.ids import Clock
from engine.log import RevisionEntry, Stored
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace, canonical_content, workspace_from_content
from experiments import changed_faults

MOST_KEPT = 64


class Revisions:
    """Workspaces of the revisions that the log names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._get = lru_cache(maxsize=MOST_KEPT)(self._load)

    def get(self, digest: str) -> Workspace:
        """The workspace of a revision.

        Raises
        ------
        EngineError
            If the revision is not stored, or this version cannot read it.
        """
        return self._get(digest)

    def latest(self) -> Workspace | None:
        """The workspace that was activated last; None in a database without one."""
        digest = self._store.read(ask.latest_revision)
        return None if digest is None else self.get(digest)

    def newest_first(self) -> list[str]:
        """Digests of the revisions that served, the last one first."""
        return self._store.read(ask.revisions_newest_first)

    def _load(self, digest: str) -> Workspace:
        content = self._store.read(lambda c: ask.revision(c, digest))
        if content is None:
            raise EngineError(f"revision {digest} is not stored; the log is damaged")
        return workspace_from_content(content)


def activate(store: Store, workspace: Workspace, clock: Clock) -> None:
    """Store a revision and make it the one that serves, unless it breaks a started experiment.

    Raises
    ------
    ConfigurationError
        If the workspace changes what a started experiment must keep.
    """
    while (latest := store.read(ask.latest_revision)) != workspace.revision:
        check_succession(Revisions(store), workspace)
        (result,) = store.write([revision_entry(workspace, clock(), latest)], clock())
        if isinstance(result, Stored):
            return


def check_succession(revisions: Revisions, after: Workspace) -> None:
    """Raises ConfigurationError where a revision would move units of a started experiment.

    Each experiment and holdout is compared with the last revision that had it, also when revisions
    between did not.
    """
    places = {e.id: f"layers.{e.layer}.{e.id}." for e in after.design.experiments}
    places |= {h.id: f"holdouts.{h.id}." for h in after.design.holdouts}
    faults = []
    for digest in revisions.newest_first():
        before = revisions.get(digest).design
        known = {e.id for e in before.experiments} | {h.id for h in before.holdouts}
        compared = tuple(places.pop(id_) for id_ in known & places.keys())
        faults += [
            Fault(fault.path, repr(fault.value), fault.message)
            for fault in changed_faults(before, after.design)
            if fault.path.startswith(compared)
        ]
        if not places:
            break
    if faults:
        raise ConfigurationError(tuple(faults))


def revision_entry(workspace: Workspace, now_us: int, after: str | None) -> RevisionEntry:
    """What stores a workspace under its digest and says that it serves from now on.

    It was checked to follow what served with ``after``, and is refused if another does by then.
    """
    return RevisionEntry(workspace.revision, canonical_content(workspace), now_us, after)
