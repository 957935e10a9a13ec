"""Who is assigned what: as the vectors say, as often as logged, and unmoved by anything else."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import (
    Assignment,
    Design,
    Experiment,
    Holdout,
    Pin,
    State,
    UsePolicy,
    Variant,
    assign,
    bucket,
)
from tests.experiments.designs import UNITS, designs, experiment, variants, with_change

FALSE_ALARM = 1e-3
PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def design_of(document: dict[str, Any]) -> Design:
    """The design that a language-neutral vector file writes down."""

    def content(value: str | dict[str, str]) -> Pin | UsePolicy:
        return Pin(value) if isinstance(value, str) else UsePolicy(value["policy"])

    holdouts = tuple(
        Holdout(
            row["id"],
            float(row["share"]),
            None if row["surfaces"] is None else frozenset(row["surfaces"]),
            row["salt"],
        )
        for row in document["holdouts"]
    )
    experiments = tuple(
        Experiment(
            row["id"],
            row["layer"],
            (float(row["range"][0]), float(row["range"][1])),
            float(row["ramp"]),
            tuple(
                Variant(
                    variant["id"],
                    float(variant["weight"]),
                    {slot: content(value) for slot, value in variant["slots"].items()},
                )
                for variant in row["variants"]
            ),
            row["state"],
            row["salt"],
        )
        for row in document["experiments"]
    )
    return Design(holdouts, experiments)


def test_assignments_are_those_of_the_golden_vectors() -> None:
    document = json.loads((Path(__file__).parents[1] / "vectors" / "assignment.json").read_text())
    design = design_of(document["design"])
    for vector in document["vectors"]:
        found = assign(design, vector["unit"], vector["surface"])
        expected = vector["assignments"]
        assert [(a.kind, a.id, a.variant) for a in found] == [
            (a["kind"], a["id"], a["variant"]) for a in expected
        ]
        for ours, theirs in zip(found, expected, strict=True):
            assert list(ours.factors) == list(theirs["factors"])
            assert np.allclose(list(ours.factors.values()), list(theirs["factors"].values()), 1e-15)
            assert math.isclose(ours.probability, theirs["probability"], rel_tol=1e-15)


def test_a_held_out_unit_is_in_no_experiment() -> None:
    design = Design((Holdout("global", 0.3),), (experiment(),))
    kinds = [tuple(a.kind for a in assign(design, unit, "home")) for unit in UNITS]
    assert set(kinds) == {("holdout",), ("experiment",)}


def test_a_holdout_of_surfaces_leaves_the_others_alone() -> None:
    design = Design((Holdout("s", 0.99, frozenset({"search"})),), (experiment(),))
    assert all(assign(design, unit, "home")[0].kind == "experiment" for unit in UNITS)
    held = sum(bool(assign(design, unit, "search")) for unit in UNITS)
    assert held > 0.9 * len(UNITS)


def test_the_first_of_several_holdouts_names_the_assignment() -> None:
    design = Design((Holdout("first", 0.5), Holdout("second", 0.5)), ())
    for unit in UNITS:
        first, second = (bucket(f"holdout.{id_}", unit) < 0.5 for id_ in ("first", "second"))
        if first:
            expected = [Assignment("holdout", "first", "holdout", 0.5, {"holdout.first": 0.5})]
        elif second:
            factors = {"holdout.first": 0.5, "holdout.second": 0.5}
            expected = [Assignment("holdout", "second", "holdout", 0.25, factors)]
        else:
            expected = []
        assert list(assign(design, unit, "any")) == expected


def test_a_unit_is_in_at_most_one_experiment_of_a_layer_and_in_one_of_each_other() -> None:
    design = Design(
        (),
        (
            experiment("a", layer="one", range_=(0, 0.5)),
            experiment("b", layer="one", range_=(0.5, 1)),
            experiment("c", layer="two", slot="home.hero"),
        ),
    )
    found = Counter(tuple(a.id for a in assign(design, unit, "home")) for unit in UNITS)
    assert set(found) == {("a", "c"), ("b", "c")}


def test_an_experiment_across_surfaces_has_one_assignment_everywhere() -> None:
    across = tuple(
        Variant(f"v{i}", 1, {"home.layout": Pin("x"), "search.banner": Pin("y")}) for i in range(3)
    )
    design = Design((), (Experiment("e", "l", (0, 0.8), 0.9, across),))
    for unit in UNITS:
        assert assign(design, unit, "home") == assign(design, unit, "search")
        assert assign(design, unit, "elsewhere") == ()


@pytest.mark.parametrize("state", ["draft", "paused", "ended"])
def test_an_experiment_that_does_not_run_assigns_no_one(state: State) -> None:
    design = Design((), (experiment(state=state),))
    assert not any(assign(design, unit, "home") for unit in UNITS)


def test_a_ramp_of_zero_assigns_no_one_and_of_one_everyone() -> None:
    assert not any(assign(Design((), (experiment(ramp=0),)), unit, "home") for unit in UNITS)
    assert all(assign(Design((), (experiment(ramp=1),)), unit, "home") for unit in UNITS)


@given(designs(), st.data())
@PROPERTY
def test_raising_a_ramp_moves_nobody_who_already_takes_part(
    design: Design, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(design.experiments) - 1))
    low = data.draw(st.floats(0.2, 0.6))
    design = with_change(design, index, state="running", ramp=low)
    chosen = design.experiments[index]
    raised = with_change(design, index, ramp=data.draw(st.floats(low, 1)))
    for unit in UNITS:
        for surface in ("home", "search"):
            before = _variants(design, unit, surface)
            after = _variants(raised, unit, surface)
            assert after.items() >= before.items()
            assert after.keys() - before.keys() <= {("experiment", chosen.id)}


@given(designs(), st.data())
@PROPERTY
def test_adding_or_ending_an_experiment_moves_nobody_in_another(
    design: Design, data: st.DataObject
) -> None:
    """Dropping one from a design is adding it to the rest, seen backwards."""
    index = data.draw(st.integers(0, len(design.experiments) - 1))
    design = with_change(design, index, state="running")
    chosen = design.experiments[index]
    rest = design.experiments[:index] + design.experiments[index + 1 :]
    without = replace(design, experiments=rest)
    ended = with_change(design, index, state="ended")
    for unit in UNITS:
        for surface in ("home", "search"):
            before = {a.id: a for a in assign(design, unit, surface) if a.id != chosen.id}
            for changed in (without, ended):
                assert {a.id: a for a in assign(changed, unit, surface)} == before


@given(designs())
@PROPERTY
def test_a_probability_is_the_product_of_its_factors(design: Design) -> None:
    for unit in UNITS[:50]:
        for assignment in assign(design, unit, "home"):
            assert assignment.probability == math.prod(assignment.factors.values())
            assert 0 < assignment.probability <= 1


def test_logged_probabilities_are_the_frequencies() -> None:
    """Each of nine outcomes within its binomial bound, and far outside if a factor is dropped."""
    design = Design(
        (Holdout("first", 0.2), Holdout("second", 0.3)),
        (
            experiment("a", range_=(0.1, 0.5), ramp=0.7, weights=(1, 3)),
            experiment("b", range_=(0.5, 0.9), ramp=0.4, weights=(2, 1, 1)),
            experiment("c", layer="other", range_=(0.0, 0.6), ramp=0.5, slot="home.hero"),
        ),
    )
    n = 40_000
    counts: Counter[tuple[str, str]] = Counter()
    probabilities: dict[tuple[str, str], float] = {}
    for i in range(n):
        for assignment in assign(design, f"u:{i}", "home"):
            key = (assignment.id, assignment.variant)
            counts[key] += 1
            assert probabilities.setdefault(key, assignment.probability) == assignment.probability
    assert len(counts) == 9
    for key, count in counts.items():
        test = stats.binomtest(count, n, probabilities[key])
        assert test.pvalue > FALSE_ALARM / len(counts), key
        factors = _factors(design, key)
        for dropped in factors:
            wrong = math.prod(p for name, p in factors.items() if name != dropped)
            assert stats.binomtest(count, n, wrong).pvalue < 1e-9, (key, dropped)


def test_holdout_layer_ramp_and_variant_are_independent_of_each_other() -> None:
    """One χ² of the four-way table against the product of its margins, known beforehand."""
    shares = (0.3, 0.5, 0.4)
    chosen = experiment("layer1", layer="layer1", weights=(1, 1))
    salts = ("holdout.layer1", chosen.layer_salt, chosen.ramp_salt, chosen.variant_salt)
    n = 40_000
    inside = np.array(
        [
            [bucket(salt, f"u:{i}") < share for i in range(n)]
            for salt, share in zip(salts, (*shares, 0.5), strict=True)
        ]
    )
    counts = np.bincount((inside.T * [8, 4, 2, 1]).sum(axis=1), minlength=16)
    product = np.array([1.0])
    for share in (*shares, 0.5):
        product = np.concatenate([product[:, None] * (1 - share), product[:, None] * share], axis=1)
        product = product.ravel()
    assert stats.chisquare(counts, product * n).pvalue > FALSE_ALARM


def test_variants_of_two_layers_are_independent() -> None:
    design = Design(
        (),
        (experiment("exp_a", layer="layer1"), experiment("exp_b", layer="layer2", slot="home.b")),
    )
    table = np.zeros((2, 2))
    for i in range(20_000):
        first, second = assign(design, f"u:{i}", "home")
        table[int(first.variant[1]), int(second.variant[1])] += 1
    assert stats.chi2_contingency(table).pvalue > FALSE_ALARM


def test_the_sample_ratios_of_experiments_without_fault_have_uniform_p_values() -> None:
    """300 experiments of 1,500 units each; too many small p-values, or too few, would show."""
    p_values = []
    for seed in range(300):
        one = experiment(f"aa_{seed}", weights=(5, 3, 2))
        design = Design((), (one,))
        counts = Counter(assign(design, f"u:{i}", "home")[0].variant for i in range(1_500))
        observed = [counts[f"v{i}"] for i in range(3)]
        p_values.append(stats.chisquare(observed, [750, 450, 300]).pvalue)
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


def test_an_assignment_cannot_be_changed() -> None:
    (assignment,) = assign(Design((), (experiment(),)), "u:1", "home")
    with pytest.raises(TypeError):
        assignment.factors["layer.homepage"] = 2  # type: ignore[index]  # what is tested


def test_the_bounds_of_variants_reach_one_whatever_the_weights() -> None:
    weights = (0.1,) * 10
    design = Design((), (replace(experiment(), variants=variants(weights)),))
    seen = {assign(design, unit, "home")[0].variant for unit in UNITS}
    assert seen == {f"v{i}" for i in range(10)}


def _variants(design: Design, unit: str, surface: str) -> dict[tuple[str, str], str]:
    return {(a.kind, a.id): a.variant for a in assign(design, unit, surface)}


def _factors(design: Design, key: tuple[str, str]) -> dict[str, float]:
    for i in range(10_000):
        for assignment in assign(design, f"u:{i}", "home"):
            if (assignment.id, assignment.variant) == key:
                return dict(assignment.factors)
    raise AssertionError(key)
