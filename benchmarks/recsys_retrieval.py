"""Candidates out of a million items on one thread, beside one pass over half of their numbers.

The floor is ``X[:, :32] @ q`` of a column-major matrix: whatever reads less than half of a million
vectors cannot know their best.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.affinity import Factors, NearestItems
from recsys.als import ridge
from recsys.bound import BoundModel, bind
from recsys.call import Call, Interaction
from recsys.catalogue import Catalogue, Item, ItemIndex, ItemSchema, Mask, Rows
from recsys.model import MIXTURE, Adopted, Model, open_model
from recsys.popularity import Popularity
from recsys.retrieval import build_index
from recsys.settings import TrainSettings

ITEMS, D, K, QUERIES, EXACT = 1_000_000, 64, 1000, 60, 10
SHARES = (None, 0.1, 0.01)
DECAY = 16.0  # axes over which the spread of factors falls by e, as of factorised catalogues
CALLS, NEAREST = 40, 20
DAY = 86_400_000_000
NOW = 1_000 * DAY
EMBEDDED = 100_000  # items of the catalogue whose memory is measured

Floats = npt.NDArray[np.float32]


def vectors(n: int, seed: int, decay: float) -> Floats:
    """Vectors whose spread falls along axes that are not the coordinates."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(99).normal(size=(D, D)))[0]
    spread = rng.standard_normal((n, D), np.float32) * np.exp(-np.arange(D) / decay)
    return np.asarray(spread @ axes, np.float32)


def alternating(calls: Sequence[Callable[[int], object]], rounds: int) -> npt.NDArray[np.float64]:
    """(calls, rounds), milliseconds of processor time, the calls taking turns."""
    times = np.zeros((len(calls), rounds))
    for number in range(rounds):
        for which, call in enumerate(calls):
            start = time.thread_time()
            call(number)
            times[which, number] = 1000.0 * (time.thread_time() - start)
    return times


def told(times: npt.NDArray[np.float64]) -> str:
    """Median, range and 95th percentile."""
    median, p95 = np.median(times), np.quantile(times, 0.95)
    return f"{median:7.2f}  [{times.min():.2f}, {times.max():.2f}]  p95 {p95:.2f}"


def retrieval(decay: float) -> None:
    """The index beside the floor, and how much of the exact top k it finds."""
    items, queries = vectors(ITEMS, 0, decay), vectors(QUERIES, 1, decay)
    index = build_index(items)
    half = np.asfortranarray(items[:, : D // 2])
    print(f"top {K} of {ITEMS:,} × {D}, milliseconds; spread falls by e over {decay:.0f} axes")
    for share in SHARES:
        eligible = None if share is None else np.random.default_rng(2).random(ITEMS) < share

        def ours(number: int, eligible: Mask | None = eligible) -> Rows:
            return index.top(queries[number], K, eligible)[0]

        def floor(number: int) -> Floats:
            return np.asarray(half @ queries[number][: D // 2])

        ours(0)
        times = alternating([ours, floor], QUERIES)
        found = 0
        for number in range(EXACT):
            scores = items @ queries[number]
            if eligible is not None:
                scores[~eligible] = -np.inf
            found += len(np.intersect1d(np.argpartition(-scores, K)[:K], ours(number)))
        name = "all eligible" if share is None else f"{share:.0%} eligible"
        ratio = np.median(times[0]) / np.median(times[1])
        print(f"  {told(times[0])}  {name}, recall {found / (K * EXACT):.4f}")
        print(f"  {told(times[1])}  the floor: ratio {ratio:.2f}")


def catalogue_of(ids: Sequence[str]) -> Catalogue:
    """Items with a category, a price and a stock."""
    schema = ItemSchema({"category": "string", "price": "number", "stock": "number"})
    items = [
        Item(item_id, {"category": f"c{n % 300}", "price": 1.0 + n % 50, "stock": n % 7})
        for n, item_id in enumerate(ids)
    ]
    return Catalogue.empty(schema).upsert(items, NOW)


def bound(items: int) -> BoundModel:
    """A model of random factors: training a million items takes minutes and changes no time."""
    rng = np.random.default_rng(3)
    factors = vectors(items, 3, DECAY)
    ids = tuple(f"item{number:07d}" for number in range(items))
    catalogue = catalogue_of(ids)
    counts = rng.pareto(1.0, items)
    recent = counts * rng.random(items) / 5.0
    nearest = NearestItems(
        rng.integers(0, items, (items, NEAREST)).astype(np.int32),
        np.sort(rng.random((items, NEAREST), np.float32), axis=1)[:, ::-1].copy(),
    )
    model = Model(
        TrainSettings(kind="als", neighbours=NEAREST),
        NOW,
        catalogue.digest,
        None,
        ItemIndex(ids),
        Popularity(NOW, 14.0, counts, recent, (), np.zeros((0, items))),
        nearest,
        np.full(items, np.nan),
        Factors(build_index(factors), ridge(factors, 0.01, 0.005, items)),
        Adopted(ItemIndex(), np.zeros((0, MIXTURE), np.int32), np.zeros((0, MIXTURE), np.float32)),
    )
    return bind(model, catalogue)


def candidates(items: int) -> None:
    """Whole candidate calls, with and without a history, half of them with a tenth eligible."""
    source = bound(items)
    ids = source.catalogue.ids
    eligible = np.random.default_rng(4).random(items) < 0.1
    for history, mask in ((50, None), (50, eligible), (0, None), (0, eligible)):

        def ask(number: int, history: int = history, mask: Mask | None = mask) -> None:
            rows = np.random.default_rng(number).integers(0, items, history)
            seen = tuple(Interaction(ids[row], "view", NOW - DAY) for row in rows)
            source.candidates(question(seen), source.catalogue, "for_you", mask, K)

        ask(0)
        [times] = alternating([ask], CALLS)
        name = "all eligible" if mask is None else "10% eligible"
        print(f"  {told(times)}  {K} candidates of {items:,}, history of {history}, {name}")


def question(seen: tuple[Interaction, ...]) -> Call:
    """A call with a history."""
    return Call(user_id="u", surface="s", slate="s", k=20, now=NOW, trace_id="t", history=seen)


def memory(folder: Path) -> None:
    """Peak megabytes of a process with a catalogue of 100,000 items and its mapped model."""
    path = folder / "model"
    path.write_bytes(bound(EMBEDDED).model.dumps())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.recsys_retrieval", "serve", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    size = path.stat().st_size / 1e6
    print(f"  {done.stdout.strip()} MB at most, {EMBEDDED:,} items, model of {size:.0f} MB mapped")


def serve(path: str) -> None:
    """Hold what a server holds, answer, and print the peak of resident memory."""
    model = open_model(Path(path))
    source = bind(model, catalogue_of(model.index.ids))
    seen = tuple(Interaction(item_id, "view", NOW) for item_id in model.index.ids[:50])
    source.candidates(question(seen), source.catalogue, "for_you", None, K)
    source.candidates(question(()), source.catalogue, "for_you", None, K)
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(f"{int(peak) / 1024:.0f}")


def alone() -> None:
    """All of it, in a process whose BLAS has one thread."""
    for decay in (DECAY, 2.0 * DECAY):
        retrieval(decay)
    print("candidates, milliseconds")
    candidates(ITEMS)
    print("memory")
    with tempfile.TemporaryDirectory() as folder:
        memory(Path(folder))


def main() -> None:
    """Run in a process of its own, since a BLAS takes the number of its threads when loaded."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.recsys_retrieval", "alone"]
    subprocess.run(command, check=True, env={**os.environ, **threads})


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:] == ["alone"]:
        alone()
    else:
        main()
