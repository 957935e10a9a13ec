"""Intervals beyond the jackknife and Cressie–Read: formulas, promises over many looks, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests

from attribution import AttributionError, EvaluationLog, evaluate
from attribution.bootstrap import PoissonSums
from attribution.diagnostics import tail_index
from attribution.intervals import (
    Spread,
    deviations,
    skew_corrected,
    skew_corrected_p,
    spread,
    totals,
)
from attribution.sequences import Bounded, bernstein_lower, bernstein_p, betting_lower, betting_p
from attribution.trials import CRESSIE_READ, IntervalName
from tests.attribution.worlds import World, at_least, heavy, mild

FloatArray = npt.NDArray[np.float64]


def single(count: int) -> npt.NDArray[np.intp]:
    return np.ones(count, dtype=np.intp)


def part(log: EvaluationLog, n: int) -> EvaluationLog:
    """The first n rows."""
    return EvaluationLog(
        log.actions,
        log.action[:n],
        log.reward[:n],
        log.propensity[:n],
        reward_range=log.reward_range,
        max_weight=log.max_weight,
    )


def test_bernstein_is_the_bound_of_maurer_and_pontil() -> None:
    """Reference: theorem 4, worked by hand for one row a unit."""
    x = np.random.default_rng(0).random(50) * 4
    terms = Bounded(x, np.ones(50), 0.0, 4.0, 1, 4.0)
    log = np.log(2 / 0.025)
    hand = x.mean() - np.sqrt(2 * x.var(ddof=1) * log / 50) - 7 * 4 * log / (3 * 49)
    assert bernstein_lower(terms, 0.025) == pytest.approx(hand, rel=1e-12)
    assert bernstein_p(terms, hand, 0.5) == pytest.approx(0.025, rel=1e-9)


def test_an_anytime_end_is_where_the_wealth_is_enough() -> None:
    """Reference: the product of the bets themselves, without steadied terms."""
    x = np.random.default_rng(1).exponential(size=200)
    terms = Bounded(x, np.ones(200), 0.0, np.inf, 1, 1.0)
    low = betting_lower(terms, 0.05)
    running = np.cumsum(x) / np.arange(1, 201)
    spent = np.concatenate([[0.25], 0.25 + np.cumsum((x - running) ** 2)[:-1]])
    deviation = np.sqrt(spent / np.arange(1, 201))
    # The best bet is about √(2 log 20 / 200) = 0.17 deviations.
    sizes = 2.0 ** -np.arange(1, 5)
    wealth = sum(np.prod(1 + np.minimum(s / deviation, 0.9 / low) * (x - low)) for s in sizes) / 12
    assert wealth == pytest.approx(20, rel=1e-6)
    assert betting_p(terms, low, 0.05) == pytest.approx(0.05, rel=1e-6)
    assert 0.5 < low < x.mean()


LOGS, LOOKS = 150, 12


@pytest.mark.parametrize("world", [mild(0.3), heavy(0.86)], ids=["mild", "heavy"])
@pytest.mark.parametrize("name", ["ips", "dr"])
def test_anytime_intervals_hold_at_every_look_at_once(world: World, name: str) -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(LOGS):
        log = world.log(rng, single(600))
        seen = [part(log, n) for n in range(50, 601, 50)]
        assert len(seen) == LOOKS
        reports = [
            evaluate(each, {"t": world.target_for(each)}, [name], interval="anytime")
            for each in seen
        ]
        rows = [report.results[0] for report in reports]
        held += all(not row.low > world.value and not row.high < world.value for row in rows)
    assert at_least(held, LOGS, 0.95)


def unequal(rng: np.random.Generator, **declared: Any) -> EvaluationLog:
    """A log of 150 units with one to a dozen rows each, of the mild world at .4."""
    drawn = mild(0.4).log(rng, np.minimum(1 + rng.poisson(2, 150), 12), taste=0.1)
    return EvaluationLog(
        drawn.actions,
        drawn.action,
        drawn.reward,
        drawn.propensity,
        drawn.unit,
        reward_range=(0, 1),
        max_weight=drawn.max_weight,
        **declared,
    )


def test_anytime_intervals_of_unequal_units_cover() -> None:
    world = mild(0.4)
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        log = unequal(rng, max_rows=12)
        [row] = evaluate(log, {"t": world.target_for(log)}, ["ips"], interval="anytime").results
        assert row.interval == "anytime"
        hits += row.low <= world.value <= row.high
    assert at_least(hits, 60, 0.95)


@pytest.mark.parametrize("kind", ["anytime", "bernstein"])
def test_units_of_unequal_size_need_the_largest_number_of_rows(kind: Any) -> None:
    log = unequal(np.random.default_rng(3))
    with pytest.raises(AttributionError, match="declares no `max_rows`"):
        evaluate(log, {"u": log.uniform() * 1.0}, ["ips"], interval=kind)
    with pytest.raises(AttributionError, match="`max_rows` is 1 but a unit has"):
        unequal(np.random.default_rng(3), max_rows=1)


@pytest.mark.parametrize("kind", ["bernstein", "anytime", "cressie_read"])
def test_an_interval_whose_range_was_not_declared_is_refused(kind: Any) -> None:
    world = mild(0.4)
    log = world.log(np.random.default_rng(4), single(100), declared=False)
    with pytest.raises(AttributionError, match="declares no `reward_range`"):
        evaluate(log, {"t": world.target_for(log)}, ["ips"], interval=kind)
    ranged = EvaluationLog(log.actions, log.action, log.reward, log.propensity, reward_range=(0, 1))
    target = {"t": world.target_for(log)}
    if kind == "bernstein":
        with pytest.raises(AttributionError, match="declares no `max_weight`"):
            evaluate(ranged, target, ["ips"], interval=kind)
    else:
        [row] = evaluate(ranged, target, ["ips"], interval=kind).results
        assert 0 <= row.low <= row.value <= row.high <= 1


def test_the_mirrored_reward_has_the_mirrored_anytime_and_bernstein_interval() -> None:
    world = mild(0.3)
    log = world.log(np.random.default_rng(5), single(300))
    common: dict[str, Any] = {"max_weight": log.max_weight, "reward_range": (-1, 0)}
    mirrored = EvaluationLog(log.actions, log.action, -log.reward, log.propensity, **common)
    target = {"t": world.target_for(log)}
    kinds: list[IntervalName] = ["bernstein", "anytime"]
    for kind in kinds:
        [one] = evaluate(log, target, ["ips"], interval=kind).results
        [two] = evaluate(mirrored, target, ["ips"], interval=kind).results
        assert (-two.high, -two.low) == pytest.approx((one.low, one.high), abs=1e-8)


def test_bootstrap_weights_are_poisson_and_independent() -> None:
    """Reference: scipy's Poisson law and the moments of sums of independent weights."""
    single = PoissonSums(1, 7, draws=40_000)
    single.add([np.ones(1)], 1)
    counts = single.total()[0]
    observed = np.bincount(np.minimum(counts, 7).astype(int), minlength=8)
    expected: FloatArray = 40_000 * np.append(
        stats.poisson.pmf(range(7), 1), stats.poisson.sf(6, 1)
    )
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    columns = np.stack([np.ones(5000), np.arange(5000.0) % 2])
    drawn = [PoissonSums(2, 8, draws=1001) for _ in range(2)]
    drawn[0].add(columns, 5000)
    for start in range(0, 5000, 77):
        portion = columns[:, start : start + 77]
        drawn[1].add(portion, portion.shape[1])
    sums, portions = (each.total() for each in drawn)
    np.testing.assert_array_equal(sums, portions)
    assert sums.shape == (2, 1001)
    assert sums[0].var() == pytest.approx(5000, rel=0.2)
    assert np.asarray(np.corrcoef(sums))[0, 1] == pytest.approx(np.sqrt(0.5), abs=0.1)


def test_the_bootstrap_spreads_as_the_jackknife_does_and_never_freezes_the_mean_weight() -> None:
    """A frozen mean weight would make SNIPS spread as IPS does, 2.4 times as wide."""
    world = mild(0.72)
    log = world.log(np.random.default_rng(6), np.full(500, 2), taste=0.05)
    report = evaluate(
        log, {"t": world.target_for(log)}, ["ips", "snips", "sndr"], interval="bootstrap",
        against="logging",
    )  # fmt: skip
    for table in (report.table(), report.comparisons()):
        assert set(table["interval"]) == {"bootstrap"}
        normal = 2 * 1.96 * table["se"]
        np.testing.assert_allclose((table["high"] - table["low"]) / normal, 1, atol=0.15)
    ips, snips, _ = report.results
    assert snips.high - snips.low < 0.95 * (ips.high - ips.low)
    again = evaluate(log, {"t": world.target_for(log)}, ["snips"], interval="bootstrap", seed=1)
    assert again.results[0].low != snips.low


def test_the_note_says_which_interval_was_chosen_and_why() -> None:
    rng = np.random.default_rng(7)
    notes = []
    for world, declared in (
        (mild(0.5), True),
        (mild(0.08), False),
        (heavy(0.5), True),
        (heavy(0.5), False),
    ):
        log = world.log(rng, single(1000), declared=declared)
        report = evaluate(log, {"t": world.target_for(log)}, ["ips"])
        [row] = report.results
        notes.append((row.interval, row.note.split(":")[0], report.diagnostics["t"].verdict))
    assert notes[:3] == [
        ("jackknife", "jackknife", "ok"),
        ("jackknife, skew corrected", "jackknife, skew corrected", "ok"),
        (CRESSIE_READ, "Cressie–Read", "weak"),
    ]
    assert notes[3][1].startswith("jackknife in spite of asymmetry")
    assert notes[3][2] == "weak"


@pytest.mark.parametrize("skew", [-0.3, -0.05, 0.0, 0.05, 0.3])
def test_the_skew_corrected_ends_are_where_the_transformed_statistic_is_students(
    skew: float,
) -> None:
    """Reference: Hall's g, solved by scipy's brentq."""
    seen = Spread(2.0, 50, skew, 30.0)
    found = skew_corrected(10.0, seen, 0.05)

    def g(t: float) -> float:
        return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6

    for end, quantile in ((found.low, 0.975), (found.high, 0.025)):
        t = brentq(lambda x, q=quantile: g(x) - stats.t.ppf(q, 30), -9, 9)
        assert end == pytest.approx(10 - 2 * t, rel=1e-9)
    level = skew_corrected_p(4.0, seen)
    edge = skew_corrected(4.0, seen, level)
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)


def test_degrees_of_freedom_fall_where_a_few_units_make_most_of_the_variance() -> None:
    """Reference: 2 m / (κ − 1) with scipy's kurtosis, at most m − 1."""
    rng = np.random.default_rng(13)
    for x in (rng.normal(size=4000), rng.exponential(size=4000), rng.standard_t(5, size=4000)):
        part = [(x, 1.0)]
        seen = spread(deviations([part], totals([part])), float(x.mean()))
        kurtosis = float(stats.kurtosis(x, fisher=False))
        assert seen.df == pytest.approx(min(3999, 8000 / (kurtosis - 1)), rel=1e-6)
        assert seen.skew == pytest.approx(float(stats.skew(x)) / np.sqrt(4000), rel=1e-6)
        assert seen.se == pytest.approx(float(stats.sem(x)), rel=1e-10)


def test_cressie_read_as_an_estimator_brings_its_own_interval() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(8), single(500))
    target = {"t": world.target_for(log)}
    [row] = evaluate(log, target, ["cressie_read"], interval="jackknife").results
    [forced] = evaluate(log, target, ["ips"], interval="cressie_read").results
    assert (row.value, row.low, row.high) == (forced.value, forced.low, forced.high)


def test_all_targets_are_compared_with_logging_and_each_other_and_adjusted() -> None:
    world = mild(0.4)
    log = world.log(np.random.default_rng(10), single(4000))
    near = 0.8 * world.logging + 0.2 * world.target
    targets = {"t": world.target_for(log), "near": np.tile(near, (log.n, 1)), "u": log.uniform()}
    report = evaluate(log, targets, ["ips", "snips"], against="all")
    table = report.comparisons()
    assert len(table) == 2 * 6
    assert set(zip(table["target"], table["against"], strict=True)) == {
        ("t", "near"), ("t", "u"), ("near", "u"), ("t", "logging"), ("near", "logging"),
        ("u", "logging"),
    }  # fmt: skip
    ips = table[table["estimator"] == "ips"]
    reference = multipletests(ips["p_value"], method="holm")[1]
    np.testing.assert_allclose(ips["p_adjusted"], reference, rtol=1e-12)
    assert set(ips["correction"]) == {"p: Holm, interval: Bonferroni, of 6"}
    reach = stats.t.ppf(1 - 0.025 / 6, 3999) * ips["se"]
    np.testing.assert_allclose(ips["high_adjusted"] - ips["difference"], reach, rtol=1e-9)
    alone = evaluate(log, targets, ["ips"], against="all", correction="none").comparisons()
    assert (alone["p_adjusted"] == alone["p_value"]).all()
    assert set(alone["correction"]) == {"none"}


@pytest.mark.parametrize(
    "kind", ["jackknife", "skew_corrected", "cressie_read", "bernstein", "anytime"]
)
def test_p_values_are_the_duals_of_their_intervals(kind: Any) -> None:
    """At a level of the p-value itself one end of the interval is zero."""
    world = World(mild(0.5).reward, mild(0.5).logging, np.eye(10)[9])
    log = world.log(np.random.default_rng(11), single(3000))
    log = EvaluationLog(
        log.actions, log.action, log.reward, log.propensity, reward_range=(0, 1), max_weight=12.0
    )
    target = {"t": world.target_for(log)}
    [found] = evaluate(log, target, ["ips"], against="logging", interval=kind).comparisons_made
    if kind == "anytime":
        # Bets are made for one level, so that the p-value is exact at that level only.
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
        return
    assert found.p_value < 1
    [edge] = evaluate(
        log, target, ["ips"], against="logging", interval=kind, alpha=found.p_value
    ).comparisons_made
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-6)


def test_the_tail_index_finds_the_shape_of_a_pareto_law() -> None:
    rng = np.random.default_rng(12)
    for shape in (0.2, 0.5, 1.0):
        found = [tail_index(rng.pareto(1 / shape, 20_000) + 1) for _ in range(10)]
        assert np.mean(found) == pytest.approx(shape, abs=0.1)
    assert np.isnan(tail_index(np.ones(1000)))
    assert np.isnan(tail_index(np.arange(10.0)))
