"""Rules, scores and composition of one slate on one thread, and whole calls out of a million items.

Composing is shown beside the likeness of 20 items to 1,000 by embeddings, which diversity cannot do
without; scoring beside the one product that a linear model is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.recsys_retrieval import CALLS, ITEMS, alternating, bound, told
from recsys.call import Call, Interaction, SlateKind
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, Item, ItemSchema, Mask
from recsys.features import Feature, Has, Number, Relevance, encode
from recsys.plan import Calibration, Composing, Diversity, Exploration, Limit, Pin, SlatePlan
from recsys.recommend import recommend
from recsys.replay import recompose
from recsys.rules import (
    Fresh,
    Having,
    InRegion,
    InStock,
    ItemRule,
    Newer,
    NotOwned,
    NotRecently,
    PerUnit,
    WithinCap,
)
from recsys.scoring import LinearScorer

K, M, D, FEATURES, ROUNDS = 20, 1000, 64, 30, 60
DAY = 86_400_000_000
NOW = 1_000 * DAY

FloatArray = npt.NDArray[np.float64]

LATELY: tuple[ItemRule, ...] = (
    NotOwned(),
    NotRecently("purchase", 30),
    NotRecently("return", 90, id="recent_return"),
    NotRecently("finish", 7, id="finished"),
)
EXPLORATION = Exploration(temperature=0.05, epsilon=0.05)


def all_rules(kind: str) -> SlatePlan:
    """A plan with every rule, limit and term there is."""
    return SlatePlan(
        id="s",
        k=K,
        candidates=M,
        rules=(
            InStock(),
            Fresh(3600),
            InRegion(),
            WithinCap("shown", "cap"),
            *LATELY,
            Having({"category": "c1"}, 0.2, "push"),
            Having({"genres": ["g3"]}, 0.1, "hold", "bury"),
        ),
        grades=(PerUnit("margin", 0.1, 1.0, "margin"), Newer(0.2)),
        pins=(Pin(position=3, item_id="i00100", sponsored=True),),
        composing=Composing(
            limits=(Limit(column="franchise", at_most=3), Limit(column="category", at_most=5)),
            diversity=msgspec.convert({"kind": kind, "weight": 0.3}, Diversity),
            calibration=Calibration(column="genres", weight=0.5),
            exploration=EXPLORATION,
        ),
    )


def shop(n: int) -> Catalogue:
    """Items with every attribute that the plan reads; one in fifty breaks a hard rule."""
    rng = np.random.default_rng(0)
    schema = ItemSchema(
        {
            "category": "string", "franchise": "string", "genres": "strings", "regions": "strings",
            "stock": "number", "margin": "number", "shown": "number", "cap": "number",
            "published": "time",
        },
        vector_size=D,
    )  # fmt: skip
    items = [
        Item(
            f"i{j:05d}",
            {
                "category": f"c{rng.integers(12)}",
                "franchise": f"f{rng.integers(200)}",
                "genres": [f"g{g}" for g in {*rng.integers(18, size=3).tolist()}],
                "regions": ["NO", "SE"],
                "stock": int(rng.random() < 0.98),
                "margin": float(rng.normal()),
                "shown": 3,
                "cap": 9,
                "published": NOW - int(rng.integers(100)) * DAY,
            },
            tuple(rng.normal(size=D).tolist()),
        )
        for j in range(n)
    ]
    return Catalogue.empty(schema).upsert(items, NOW)


class First:
    """Proposes the first items: composition is measured, not retrieval."""

    def candidates(
        self,
        call: Call,  # noqa: ARG002  # as all sources
        catalogue: Catalogue,
        kind: SlateKind,  # noqa: ARG002  # as all sources
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See `CandidateSource.candidates`."""
        rows = np.arange(catalogue.size) if allowed is None else np.flatnonzero(allowed)
        rows, none = rows[:count], np.full(min(count, len(rows)), -1, np.intp)
        scores = np.linspace(3.0, 0.0, len(rows)) ** 2
        return Candidates(rows, scores, np.zeros(len(rows), np.int8), none, ("first",))


def call(ids: Sequence[str], number: int) -> Call:
    """A call with a history of 100 that explores."""
    rng = np.random.default_rng(number)
    rows = rng.integers(0, len(ids), 100)
    kinds = rng.choice(["view", "purchase", "finish"], 100).tolist()
    seen = tuple(
        Interaction(ids[row], kind, NOW - (100 - age) * DAY)
        for age, (row, kind) in enumerate(zip(rows.tolist(), kinds, strict=True))
    )
    return Call(
        user_id="u", surface="s", slate="s", k=K, now=NOW, trace_id="t", history=seen,
        owned=tuple(ids[row] for row in rows[:20]), context={"region": "NO"},
        uniforms=tuple(rng.random(K).tolist()),
    )  # fmt: skip


def stages(timings: Sequence[Mapping[str, float]], names: Sequence[str]) -> FloatArray:
    """(calls,), milliseconds of some stages together."""
    return np.array([1000.0 * sum(each[name] for name in names) for each in timings])


def composing() -> None:
    """All rules over 1,000 candidates, and 20 of them put in order."""
    catalogue = shop(3000)
    vectors = np.asarray(catalogue.vectors)[:M]
    calls = [call(catalogue.ids, number) for number in range(ROUNDS)]
    print(f"{K} of {M} with all rules, milliseconds")
    for kind in ("mmr", "dpp"):
        plan = all_rules(kind)
        recommend(calls[0], plan, catalogue, First())
        timings, traces, floor = [], [], []
        for each in calls:
            made = recommend(each, plan, catalogue, First(), timer=time.thread_time)
            timings.append(made.timings)
            traces.append(made.trace)
            start = time.thread_time()
            for position in range(K):
                np.dot(vectors, vectors[position])
            floor.append(1000.0 * (time.thread_time() - start))
        both = stages(timings, ["rules", "composition"])
        print(f"  {told(both)}  rules and composition, {kind}")
        print(f"  {told(stages(timings, ['rules']))}    of which rules")
        print(f"  {told(stages(timings, ['trace']))}  its trace")
        ratio = np.median(both) / np.median(floor)
        print(f"  {told(np.array(floor))}  the floor: {K} products; ratio {ratio:.1f}")
        again = alternating([lambda number, kept=traces: recompose(kept[number])], ROUNDS)  # type: ignore[misc]  # mypy cannot infer a default's type
        size = len(msgspec.json.encode(traces[0])) / 1e3
        print(f"  {told(again[0])}  composed again from the trace, of {size:.0f} kB as JSON")


def scoring() -> None:
    """1,000 candidates of 30 features, made and scored; and learned from."""
    catalogue = shop(3000)
    asked = call(catalogue.ids, 0)
    made = First().candidates(asked, catalogue, "for_you", None, M)
    features: tuple[Feature, ...] = (
        Relevance(),
        Number("margin"),
        Number("stock"),
        *(Has("category", f"c{i}") for i in range(12)),
        *(Has("genres", f"g{i}") for i in range(15)),
    )
    rng = np.random.default_rng(0)
    rows, reward = rng.random((5000, FEATURES)), rng.random(5000)
    start = time.thread_time()
    scorer = LinearScorer(features).learned(rows, reward)
    learned = 1e6 * (time.thread_time() - start) / len(rows)
    x = encode(features, asked, catalogue, made)
    weights = rng.random(FEATURES)
    tasks: dict[str, Callable[[int], object]] = {
        f"{FEATURES} features made": lambda _: encode(features, asked, catalogue, made),
        "scored": lambda _: scorer.predict(x),
        "the floor: one product": lambda _: x @ weights,
    }
    print(f"{M} × {len(features)} scored, milliseconds; {learned:.0f} µs a row learned")
    scorer.predict(x)
    for name, times in zip(tasks, alternating(list(tasks.values()), ROUNDS), strict=True):
        print(f"  {told(times)}  {name}")


def whole() -> None:
    """Whole calls: candidates, rules, composition and trace."""
    source = bound(ITEMS)
    catalogue = source.catalogue
    plan = SlatePlan(
        id="s",
        k=K,
        candidates=M,
        rules=(InStock(), Fresh(3600), *LATELY, Having({"category": "c7"}, 0.2, "push")),
        grades=(PerUnit("price", -0.1, 50.0, "price"),),
        composing=Composing(
            limits=(Limit(column="category", at_most=3),),
            diversity=Diversity(weight=0.3, column="category"),
            calibration=Calibration(column="category", weight=0.5),
            exploration=EXPLORATION,
        ),
    )
    print(f"whole calls, {K} of {ITEMS:,}, milliseconds")
    calls = [call(catalogue.ids, number) for number in range(CALLS)]
    tenth = {"category": [f"c{i}" for i in range(30)]}
    cases = {
        "rules let most through": calls,
        "a filter leaves a tenth": [msgspec.structs.replace(c, filters=tenth) for c in calls],
        "no history": [replace_history(c) for c in calls],
    }
    for name, asked in cases.items():
        recommend(asked[0], plan, catalogue, source)
        [times] = alternating(
            [lambda number, a=asked: recommend(a[number], plan, catalogue, source)],  # type: ignore[misc]  # as above
            CALLS,
        )
        timed = recommend(asked[1], plan, catalogue, source, timer=time.thread_time).timings
        parts = ", ".join(f"{stage} {1000 * seconds:.1f}" for stage, seconds in timed.items())
        print(f"  {told(times)}  {name} ({parts})")


def replace_history(asked: Call) -> Call:
    """The call of somebody of whom nothing is known."""
    return msgspec.structs.replace(asked, history=(), owned=())


def alone() -> None:
    """All of it, in a process whose BLAS has one thread."""
    composing()
    scoring()
    whole()


def main() -> None:
    """Run in a process of its own, since a BLAS takes the number of its threads when loaded."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.recsys_slates", "alone"]
    subprocess.run(command, check=True, env={**os.environ, **threads})


if __name__ == "__main__":
    if sys.argv[1:] == ["alone"]:
        alone()
    else:
        main()
