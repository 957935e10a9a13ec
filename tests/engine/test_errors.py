"""Errors: one hierarchy, drawn where it is defined, and nothing else comes out of the engine."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attribution.errors import AttributionError
from engine import errors
from engine.decide import Model, Serving
from engine.errors import (
    ConfigurationError,
    ConflictError,
    EngineError,
    Fault,
    NotFoundError,
    ReportError,
    RequestError,
    RuleError,
    SnapshotError,
    StoreError,
)
from engine.explain import explain
from engine.log import OutcomesEntry
from engine.models import restore
from engine.request import DecideRequest
from engine.revisions import Revisions, activate, check_succession
from engine.rules import parse
from engine.store import Store
from engine.workspace import load_workspace, workspace_from_content
from experiments import ExperimentError
from policies import Action, Policy, PolicyError, make_policy, snapshot_digest
from tests.engine.build import NOW, SAMPLE, Desk, decided, outcome, serving_of, workspace_of

LEAVES = (PolicyError, ExperimentError, AttributionError)
SOUND = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer, risk: number}
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots:
      layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}
policies: {p: {kind: lin_ucb}}
layers:
  l:
    e: {range: [0.0, 0.5], variants: {a: {slots: {home.layout: A}}, b: {slots: {home.layout: B}}}}
"""


# The hierarchy -----------------------------------------------------------------------------------


def _classes() -> dict[str, type[Exception]]:
    return {
        name: class_
        for name, class_ in inspect.getmembers(errors, inspect.isclass)
        if issubclass(class_, Exception) and class_.__module__ == errors.__name__
    }


def test_the_hierarchy_is_as_it_is_drawn() -> None:
    """Each class stands below its base, as deep as its bars, and none is left out."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            del path[depth:]
            drawn[match[2]] = path[-1] if path else "Exception"
            path.append(match[2])
    assert drawn == {
        name: class_.__base__.__name__ for name, class_ in _classes().items() if class_.__base__
    }


def test_one_except_catches_all() -> None:
    assert all(issubclass(class_, EngineError) for class_ in _classes().values())
    assert not any(issubclass(leaf, EngineError) for leaf in LEAVES)


def test_a_fault_reads_as_place_field_value_and_repair() -> None:
    whole = Fault("policies.p.kind", '"x"', "is no kind; fix it", Path("a/b.yaml"), 7)
    assert str(whole) == 'a/b.yaml:7: `policies.p.kind` is "x": is no kind; fix it'
    assert str(Fault("surfaces", "", "is required; add it")) == "`surfaces`: is required; add it"
    both = ConfigurationError((whole, Fault("surfaces", "", "is required; add it")))
    assert str(both) == f"{whole}\n`surfaces`: is required; add it"
    assert both.faults[0] is whole


def test_a_request_error_names_its_field() -> None:
    error = NotFoundError("surface", "is unknown")
    assert (str(error), error.field, error.message) == (
        "`surface` is unknown",
        "surface",
        "is unknown",
    )
    assert str(RequestError("", "is empty")) == "is empty"
    assert isinstance(ConflictError("id", "is taken"), RequestError)


def test_a_rule_error_says_where() -> None:
    with pytest.raises(RuleError) as caught:
        parse("weeks >= ", {"weeks": "integer"})
    assert caught.value.position == 9


# None of the leaves' errors escapes --------------------------------------------------------------


class Refusing:
    """A policy whose every answer is a PolicyError."""

    kind = "refusing"
    learns = True
    resumable = True

    def pmf(self, context: object, actions: object) -> Any:
        raise PolicyError("context is odd. Give another.")

    pmfs = expected = pmf_and_expected = learn = dumps = pmf


def _edits() -> list[tuple[str, str]]:
    """SOUND with one value after another made absurd."""
    absurd = [
        "-1",
        "1.0e+300",
        ".nan",
        "''",
        "[]",
        "{}",
        "null",
        "true",
        "'a:b'",
        "9" * 40,
        "2024-01-01",
    ]
    rng = random.Random(7)
    spans = [m.span(1) for m in re.finditer(r"[:\[,] ?([\w.@]+)(?=[,\]}\n])", SOUND)]
    return [
        (f"{SOUND[a:b]}@{a}: {value}", f"{SOUND[:a]}{value}{SOUND[b:]}")
        for a, b in spans
        for value in rng.sample(absurd, 4)
    ]


@pytest.mark.parametrize(("edit", "text"), _edits(), ids=[edit for edit, _ in _edits()])
def test_a_workspace_is_compiled_or_refused_whatever_is_in_it(edit: str, text: str) -> None:
    """Or still sound: then its stored form reads back."""
    try:
        workspace = workspace_of(text)
    except ConfigurationError as error:
        untold = [f for f in error.faults if not (f.field and f.message and f.line)]
    else:
        untold = []
        decided(serving_of(workspace), next(iter(workspace.surfaces)), 1)
    assert untold == []


def test_a_policy_that_refuses_is_a_fallback() -> None:
    workspace = workspace_of(SOUND)
    model = Model(Refusing(), None)  # type: ignore[arg-type]  # has what a policy has
    serving = Serving(workspace, dict.fromkeys(workspace.learners, model))
    reasons = {decided(serving, "home", u).choices[0].reason for u in range(20)}
    assert reasons == {"fallback", "experiment"}


def test_a_number_too_large_for_a_policy_is_a_fallback() -> None:
    serving = serving_of(workspace_of(SOUND))
    record = next(
        r
        for u in range(20)
        if not (r := decided(serving, "home", u, context={"risk": 1e200})).assignments
    )
    assert record.fallback is not None
    assert "1e+200" in record.fallback


def test_what_a_started_experiment_must_keep_is_compared_with_the_last_revision_that_had_it(
    store: Store,
) -> None:
    first = workspace_of(SOUND)
    without = workspace_of(SOUND.partition("layers:")[0])
    moved = workspace_of(SOUND.replace("[0.0, 0.5]", "[0.0, 0.6]"))
    activate(store, first, lambda: NOW)
    activate(store, without, lambda: NOW)
    with pytest.raises(ConfigurationError) as caught:
        check_succession(Revisions(store), moved)
    assert [fault.field for fault in caught.value.faults] == ["layers.l.e.range"]
    check_succession(Revisions(store), first)


def test_a_workspace_that_moves_units_is_not_activated(store: Store) -> None:
    Desk(store, workspace_of(SOUND))
    with pytest.raises(ConfigurationError):
        Desk(store, workspace_of(SOUND.replace("[0.0, 0.5]", "[0.1, 0.5]")))
    latest = Revisions(store).latest()
    assert latest is not None
    assert latest.revision == workspace_of(SOUND).revision


def _log_that_no_metric_reads(store: Store) -> None:
    desk = Desk(store, workspace_of(SOUND))
    for unit in range(20):
        record = desk.decide(unit, NOW + unit)
        desk.report(outcome(f"o{unit}", record, float("inf"), at=NOW + unit))
    desk.learn("p:home.layout", 2 * NOW)


PUBLIC: dict[str, tuple[type[EngineError], Callable[[Store], object]]] = {
    "loading no folder": (ConfigurationError, lambda _: load_workspace(SAMPLE / "absent")),
    "compiling nothing": (ConfigurationError, lambda _: workspace_from_content(b"{}")),
    "parsing a rule": (RuleError, lambda _: parse("1 +", None)),
    "asking as nobody": (RequestError, lambda _: DecideRequest(surface="home")),
    "restoring nothing": (SnapshotError, lambda _: restore(b"", snapshot_digest(b""))),
    "restoring noise": (SnapshotError, lambda _: restore(b"ab" * 40, snapshot_digest(b"ab" * 40))),
    "learning from a log that no metric reads": (EngineError, _log_that_no_metric_reads),
    "writing what no column holds": (
        StoreError,
        lambda store: store.write([OutcomesEntry((outcome("o", "u:1", at=2**70),))], NOW),
    ),
    "explaining what is not stored": (
        NotFoundError,
        lambda store: explain(store, Revisions(store), "x"),
    ),
    "reading a revision that is not stored": (EngineError, lambda store: Revisions(store).get("x")),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_raises_an_engine_error(name: str, store: Store) -> None:
    kind, call = PUBLIC[name]
    with pytest.raises(EngineError) as caught:
        call(store)
    assert isinstance(caught.value, kind)
    assert not isinstance(caught.value, LEAVES)


def test_a_translated_error_keeps_its_cause() -> None:
    with pytest.raises(SnapshotError) as caught:
        restore(b"\x80", snapshot_digest(b"\x80"))
    assert isinstance(caught.value.__cause__, PolicyError)


def test_a_snapshot_of_sound_bytes_and_unsound_content_is_refused() -> None:
    """The digest holds, the state does not: say, one written by a later version."""
    policy: Policy = make_policy("uniform")
    data = policy.dumps()
    assert restore(data, snapshot_digest(data)).pmf({}, [Action("A")]).tolist() == [1.0]
    with pytest.raises(SnapshotError, match="cannot be read"):
        restore(data[:-1], snapshot_digest(data[:-1]))


def test_reports_have_an_error_of_their_own() -> None:
    assert issubclass(ReportError, EngineError)
