"""What the engine's tests build: workspaces from text, models that serve, ids and times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url

from engine.decide import Inputs, Model, Serving, StickyDraw, decide, spends
from engine.ids import uuid7
from engine.learning import Learned, learn
from engine.log import Outcome, OutcomesEntry, Result, Stored, decision_entry
from engine.models import fresh, serving, static_models
from engine.record import ChoiceRecord, DecisionRecord
from engine.request import DecideRequest
from engine.revisions import Revisions, activate
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace, load_workspace
from policies import Policy, snapshot_digest

SAMPLE = Path(__file__).parents[2] / "examples" / "streaming" / "workspace"
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
NOW = 20_000 * DAY + 9 * HOUR
"""2024-10-04 09:00 UTC."""


def execute(url: str, statement: str, **values: Any) -> None:
    """Change a database behind its store's back."""
    drivername = "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"
    engine = create_engine(make_url(url).set(drivername=drivername), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def workspace_of(*texts: str) -> Workspace:
    """The workspace of some files' texts."""
    with TemporaryDirectory() as folder:
        for index, text in enumerate(texts):
            Path(folder, f"{index}.yaml").write_text(text, encoding="utf-8")
        return load_workspace(Path(folder))


def serving_of(workspace: Workspace, learned: Mapping[str, Policy] | None = None) -> Serving:
    """The workspace with fresh models, but for the learners that have learned."""
    models: dict[str, Model] = {}
    for id_, learner in workspace.learners.items():
        policy = (learned or {}).get(id_) or fresh(learner.policy)
        models[id_] = Model(policy, snapshot_digest(policy.dumps()))
    return Serving(workspace, models | static_models(workspace))


def decided(
    serving: Serving,
    surface: str,
    unit: int | str = 0,
    *,
    number: int = 0,
    at: int = NOW,
    sticky: Mapping[str, StickyDraw] | None = None,
    spent: Mapping[str, int] | None = None,
    **request: Any,
) -> DecisionRecord:
    """The decision number ``number`` on a surface for a user."""
    asked = DecideRequest(surface=surface, user_id=str(unit), **request)
    inputs = Inputs(sticky or {}, spent or {})
    return decide(serving, asked, inputs, decision_id=uuid7(at, number), now_us=at)


def only_choice(record: DecisionRecord) -> ChoiceRecord:
    """The choice of a decision on one slot."""
    (choice,) = record.choices
    return choice


def draws_of(record: DecisionRecord) -> Mapping[str, StickyDraw]:
    """The sticky draws that a decision made, as a later one finds them."""
    return decision_entry(record).sticky


class Desk:
    """Decides on a store as the service does, one entry at a time, and reports what happened."""

    def __init__(self, store: Store, workspace: Workspace) -> None:
        activate(store, workspace, lambda: 0)
        self.store = store
        self.workspace = workspace
        self.serving = serving(store, workspace, 0, self.warned.append)
        self.revisions = Revisions(store)
        self._number = 0

    @cached_property
    def warned(self) -> list[str]:
        """What was warned of while models were restored."""
        return []

    def decide(
        self,
        unit: int | str = 0,
        at: int = NOW,
        surface: str = "home",
        decision_id: str | None = None,
        **request: Any,
    ) -> DecisionRecord:
        """A decision that is stored, made with the unit's sticky draws."""
        self._number += 1
        asked = DecideRequest(surface=surface, user_id=str(unit), **request)
        seen = self.store.read(lambda c: ask.sticky_draws(c, asked.unit, at))
        record = decide(
            self.serving,
            asked,
            Inputs(seen, self.store.read(ask.allowances)),
            decision_id=decision_id or uuid7(at, self._number),
            now_us=at,
        )
        entry = decision_entry(record, asked, spends=spends(self.serving, record))
        (result,) = self.store.write([entry], at)
        assert result == Stored(), result
        return record

    def report(self, *outcomes: Outcome) -> Result:
        """Outcomes, stored together."""
        (result,) = self.store.write([OutcomesEntry(outcomes)], 0)
        return result

    def learn(self, learner: str, until: int, **options: Any) -> Learned | None:
        """What a learner makes of the log, stored if it made something."""
        learned = learn(
            self.store,
            self.workspace,
            self.workspace.learners[learner],
            until_us=until,
            now_us=until,
            revisions=self.revisions,
            warn=self.warned.append,
            **options,
        )
        if learned:
            self.store.write([learned.snapshot], until)
        return learned


def outcome(
    id_: str,
    of: DecisionRecord | str,
    value: float = 1.0,
    *,
    metric: str = "watch",
    at: int = NOW,
    received: int | None = None,
    corrects: str | None = None,
) -> Outcome:
    """An outcome of a decision, or of a unit (as ``u:1``), received when it occurred."""
    return Outcome(
        outcome_id=id_,
        metric=metric,
        value=value,
        occurred_at=at,
        received_at=at if received is None else received,
        corrects=corrects,
        unit=of if isinstance(of, str) else None,
        decision_id=None if isinstance(of, str) else of.decision_id,
    )
