"""Decides a fixed set of requests and prints the digest of their records: run anew to compare.

Run as ``python -m tests.engine.decide_again`` under any PYTHONHASHSEED.
"""

from __future__ import annotations

import hashlib
import random

from engine.models import fresh
from engine.record import encode_record
from engine.workspace import load_workspace
from policies import Context, Feedback
from tests.engine.build import DAY, NOW, SAMPLE, decided, draws_of, serving_of


def digest_of_decisions() -> str:
    """SHA-256 of some 300 records over both of the sample's surfaces, models having learned."""
    workspace = load_workspace(SAMPLE)
    learned = {}
    rng = random.Random(3)
    for id_, learner in workspace.learners.items():
        policy = fresh(learner.policy)
        actions = tuple(workspace.surfaces[learner.surface].slots[learner.slot].actions.values())
        feedback = []
        for _ in range(200):
            context: Context = {"device": rng.choice(["phone", "tv"]), "weeks": rng.randrange(9)}
            drawn = rng.choice(actions)
            feedback.append(Feedback(context, actions, drawn.id, 1 / len(actions), rng.random()))
        policy.learn(feedback)
        learned[id_] = policy
    serving = serving_of(workspace, learned)
    digest = hashlib.sha256()
    for number in range(150):
        seen = {"device": rng.choice(["phone", "tv"]), "weeks": rng.randrange(3), "odd": 1}
        risk = {"churn_risk": rng.random()} if number % 3 else {}
        home = decided(serving, "home", number % 50, number=number, context={**seen, **risk})
        reached = {"weeks": rng.randrange(3), "consent": number % 4 != 0, **risk}
        first = decided(serving, "nudge", number % 50, number=number, context=reached)
        again = decided(
            serving,
            "nudge",
            number % 50,
            number=number + 1_000,
            at=NOW + DAY // 2,
            sticky=draws_of(first),
            context=reached,
        )
        for record in (home, first, again):
            digest.update(encode_record(record))
    return digest.hexdigest()


if __name__ == "__main__":
    print(digest_of_decisions())
