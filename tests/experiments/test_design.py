"""A design is valid once it exists, and says everything that is wrong with one that is not."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest

from experiments import (
    Design,
    Experiment,
    ExperimentError,
    Holdout,
    Pin,
    UsePolicy,
    Variant,
    changed_faults,
)
from tests.experiments.designs import experiment, variants

SOUND = experiment()


def faults_of(holdouts: tuple[Holdout, ...], experiments: tuple[Experiment, ...]) -> list[str]:
    with pytest.raises(ExperimentError) as caught:
        Design(holdouts, experiments)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (Holdout("a b", 0.1), "`holdouts.a b` is 'a b': use 1 to 64 of the characters"),
        (Holdout("h", 1), "`holdouts.h.share` is 1: hold out a share in [0, 1)"),
        (Holdout("h", -0.1), "`holdouts.h.share` is -0.1"),
        (Holdout("h", nan), "`holdouts.h.share` is nan"),
        (Holdout("h", 0.1, frozenset()), "`holdouts.h.surfaces` is []: name a surface"),
        (Holdout("h", 0.1, frozenset({"a.b"})), "`holdouts.h.surfaces` is 'a.b'"),
        (Holdout("h", 0.1, salt="a:b"), "`holdouts.h.salt` is 'a:b': use a salt that is not empty"),
        (Holdout("h", 0.1, salt=""), "`holdouts.h.salt` is ''"),
    ],
)
def test_a_faulty_holdout_is_refused(holdout: Holdout, message: str) -> None:
    (fault,) = faults_of((holdout,), ())
    assert message in fault


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "a:b"}, "`layers.homepage.a:b` is 'a:b': use 1 to 64"),
        ({"id": "x" * 65}, "use 1 to 64"),
        ({"layer": ""}, "`layers..exp.layer` is ''"),
        ({"range": (0.5, 0.5)}, "`layers.homepage.exp.range` is [0.5, 0.5]: write [low, high]"),
        ({"range": (-0.1, 0.5)}, "write [low, high] with 0 ≤ low < high ≤ 1"),
        ({"range": (0.5, 1.1)}, "write [low, high]"),
        ({"range": (nan, 1)}, "write [low, high]"),
        ({"ramp": 1.5}, "`layers.homepage.exp.ramp` is 1.5: ramp to a share in [0, 1]"),
        ({"ramp": nan}, "ramp to a share"),
        ({"state": "done"}, "is 'done': use one of draft, running, paused, ended"),
        ({"salt": "a:b"}, "`layers.homepage.exp.salt` is 'a:b'"),
        ({"baseline": "v9"}, "`layers.homepage.exp.baseline` is 'v9': name one of v0, v1"),
        ({"variants": ()}, "`layers.homepage.exp.variants` is []: let a variant decide a slot"),
        ({"variants": (Variant("a", 1, {}),)}, "is ['a']: let a variant decide a slot"),
        ({"variants": variants((1, 0))}, "variants.v1.weight` is 0: give it a weight above 0"),
        ({"variants": variants((-1, 1))}, "variants.v0.weight` is -1"),
        ({"variants": variants((inf, 1))}, "variants.v0.weight` is inf"),
        ({"variants": variants((nan, 1))}, "variants.v0.weight` is nan"),
        ({"variants": variants() + variants((1,))}, "variants` is 'v0': is declared 2 times"),
        ({"variants": (Variant("a", 1, {"home": Pin("x")}),)}, "is 'home': name it surface.slot"),
        ({"variants": (Variant("a.b", 1, {"a.b": Pin("x")}),)}, "variants.a.b` is 'a.b': use 1"),
    ],
)
def test_a_faulty_experiment_is_refused(changes: dict[str, object], message: str) -> None:
    faulty = replace(SOUND, **changes)  # type: ignore[arg-type]  # any field
    (fault,) = faults_of((), (faulty,))
    assert message in fault


def test_all_faults_are_reported_at_once() -> None:
    faults = faults_of(
        (Holdout("h", 2), Holdout("h", 0.1)),
        (replace(SOUND, ramp=-1, variants=variants((0, 0))),),
    )
    assert len(faults) == 6
    assert faults[0] == "`holdouts` is 'h': is declared 2 times: give each an id of its own"
    assert any("serves holdouts.h.salt already" in fault for fault in faults)


def test_the_message_of_the_error_is_that_of_all_faults() -> None:
    with pytest.raises(ExperimentError, match=r"share` is 2.*\n.*ramp` is 3"):
        Design((Holdout("h", 2),), (replace(SOUND, ramp=3),))


def test_ranges_of_one_layer_may_touch_but_not_overlap() -> None:
    first = experiment("a", range_=(0, 0.5))
    Design((), (first, experiment("b", range_=(0.5, 1))))
    (fault,) = faults_of((), (first, experiment("b", range_=(0.4, 1))))
    assert "`layers.homepage.b.range` is [0.4, 1]: overlaps [0, 0.5] of 'a'" in fault


@pytest.mark.parametrize("state", ["draft", "ended"])
def test_an_experiment_that_has_not_started_or_has_ended_takes_no_room(state: str) -> None:
    first = replace(experiment("a"), state=state)  # type: ignore[arg-type]  # one of the states
    for second in (experiment("b"), experiment("b", layer="other")):
        assert Design((), (first, second)).experiments == (first, second)


def test_a_paused_experiment_keeps_its_room() -> None:
    assert len(faults_of((), (experiment("a", state="paused"), experiment("b")))) == 1


def test_two_layers_may_not_decide_the_same_slot() -> None:
    (fault,) = faults_of((), (experiment("a"), experiment("b", layer="other")))
    assert "is 'home.layout': is decided by 'a' of layer 'homepage' too" in fault


def test_two_experiments_may_not_share_a_salt() -> None:
    first, second = experiment("a", range_=(0, 0.5)), experiment("b", range_=(0.5, 1))
    faults = faults_of((), (first, replace(second, salt="a")))
    assert len(faults) == 2
    assert "is 'ramp.a': serves layers.homepage.a.salt already" in faults[0]


def test_a_holdout_may_not_take_the_salt_of_a_layer() -> None:
    (fault,) = faults_of((Holdout("h", 0.1, salt="layer.homepage"),), (experiment(),))
    assert "`layers.homepage` is 'layer.homepage': serves holdouts.h.salt already" in fault


def test_nothing_may_take_the_salt_that_selects_units() -> None:
    with pytest.raises(ExperimentError, match="serves the selection of units already"):
        Design((Holdout("h", 0.1, salt="units"),))


def test_weights_whose_sum_overflows_are_refused() -> None:
    with pytest.raises(ExperimentError, match="have an infinite sum"):
        Design((), (experiment(weights=(1e308, 1e308)),))


def test_a_variant_keeps_its_own_slots_and_can_be_hashed() -> None:
    slots: dict[str, Pin | UsePolicy] = {"home.layout": Pin("a")}
    variant = Variant("v", 1, slots)
    slots["home.layout"] = Pin("b")
    assert variant.slots["home.layout"] == Pin("a")
    assert hash(variant) == hash(Variant("v", 1, {"home.layout": Pin("a")}))
    with pytest.raises(TypeError):
        variant.slots["home.layout"] = Pin("b")  # type: ignore[index]  # what a caller may not do


def test_the_baseline_is_the_first_variant_unless_named() -> None:
    assert SOUND.baseline_variant == "v0"
    assert replace(SOUND, baseline="v1").baseline_variant == "v1"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"variants": variants((1, 2))}, "layers.homepage.exp.variants"),
        ({"variants": variants((1, 1, 1))}, "layers.homepage.exp.variants"),
        ({"variants": variants(slot="home.other")}, "layers.homepage.exp.variants"),
        ({"salt": "new"}, "layers.homepage.exp.salt"),
        ({"range": (0, 0.5)}, "layers.homepage.exp.range"),
        ({"layer": "other"}, "layers.other.exp.layer"),
    ],
)
@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_would_move_units_of_a_started_experiment_may_not_change(
    state: str, changes: dict[str, object], path: str
) -> None:
    before = replace(SOUND, state=state)  # type: ignore[arg-type]  # one of the states
    after = replace(before, **changes)  # type: ignore[arg-type]  # any field
    (fault,) = changed_faults(Design((), (before,)), Design((), (after,)))
    assert fault.path == path
    assert "has started" in fault.message


@pytest.mark.parametrize("state", ["draft", "ended"])
def test_an_experiment_that_assigns_no_one_may_change(state: str) -> None:
    before = replace(SOUND, state=state)  # type: ignore[arg-type]  # one of the states
    after = replace(before, range=(0, 0.5), variants=variants((1, 2)))
    assert changed_faults(Design((), (before,)), Design((), (after,))) == ()


def test_ramp_baseline_and_other_experiments_may_change() -> None:
    before = Design((), (replace(SOUND, ramp=0.1, range=(0, 0.5)),))
    raised = replace(before.experiments[0], ramp=0.5, baseline="v1")
    added = experiment("new", range_=(0.5, 1))
    assert changed_faults(before, Design((), (raised, added))) == ()
    assert changed_faults(before, Design()) == ()


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("draft", "running", True),
        ("running", "paused", True),
        ("paused", "running", True),
        ("running", "ended", True),
        ("paused", "ended", True),
        ("draft", "ended", True),
        ("running", "draft", False),
        ("draft", "paused", False),
        ("ended", "running", False),
        ("ended", "draft", False),
    ],
)
def test_states_move_on_and_an_ended_experiment_stays_ended(
    before: str, after: str, allowed: bool
) -> None:
    old, new = (
        Design((), (replace(SOUND, state=state),))  # type: ignore[arg-type]  # one of the states
        for state in (before, after)
    )
    assert (changed_faults(old, new) == ()) is allowed


def test_a_holdout_keeps_its_salt_and_may_change_its_share() -> None:
    before = Design((Holdout("h", 0.1),))
    assert changed_faults(before, Design((Holdout("h", 0.2),))) == ()
    (fault,) = changed_faults(before, Design((Holdout("h", 0.1, salt="new"),)))
    assert fault.path == "holdouts.h.salt"
