"""The pure decision with its record, beside a floor that only reads and writes the same JSON.

    python -m benchmarks.decision

Microseconds of processor time a call, which what else the machine does disturbs least: median and
quartiles of interleaved rounds, of the time and of its ratio to the floor's of the same round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import msgspec

from benchmarks import surface
from engine.answer import answer
from engine.decide import Inputs, decide
from engine.ids import uuid7
from engine.log import decision_entry
from engine.record import encode_record
from engine.request import DecideRequest

CALLS, ROUNDS = 400, 25
NOW = 1_750_000_000_000_000


def main() -> None:
    """Print the table."""
    rng = random.Random(1)
    serving = surface.serving()
    requests = [
        DecideRequest("home", user_id=f"u{i}", context=surface.context(rng)) for i in range(CALLS)
    ]
    bodies = [msgspec.json.encode({"user_id": r.user_id, "context": r.context}) for r in requests]
    ids = [uuid7(NOW + i, rng.getrandbits(62)) for i in range(CALLS)]

    def only_json(i: int) -> object:
        return msgspec.json.encode(msgspec.json.decode(bodies[i]))

    def only_decide(i: int) -> object:
        return decide(serving, requests[i], Inputs(), decision_id=ids[i], now_us=NOW + i)

    def with_record(i: int) -> object:
        record = decide(serving, requests[i], Inputs(), decision_id=ids[i], now_us=NOW + i)
        return encode_record(record)

    def with_entry_and_answer(i: int) -> object:
        record = decide(serving, requests[i], Inputs(), decision_id=ids[i], now_us=NOW + i)
        return decision_entry(record), msgspec.json.encode(answer(record, serving.workspace))

    compare(
        "one decision: 3 slots × 5 actions, 10 rules, 40 attributes",
        {
            "request body decoded and encoded (floor)": only_json,
            "decide": only_decide,
            "decide and encode the record": with_record,
            "… and the log entry and the answer": with_entry_and_answer,
        },
    )


def compare(title: str, runs: dict[str, Callable[[int], object]]) -> None:
    """Time every run in interleaved rounds; the first is the floor."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.thread_time()
            for i in range(CALLS):
                run(i)
            times[name].append(1e6 * (time.thread_time() - began) / CALLS)
    floor = next(iter(times.values()))
    print(f"{title}; µs, median [quartiles] of {ROUNDS} rounds × {CALLS}, and ratio to the floor")
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        ratios = [one / least for one, least in zip(taken, floor, strict=True)]
        least, ratio, most = statistics.quantiles(ratios, n=4)
        told = f"{middle:8.1f}  [{low:.1f}, {high:.1f}]  {ratio:6.1f} × [{least:.1f}, {most:.1f}]"
        print(f"{told:50}  {name}")


if __name__ == "__main__":
    main()
