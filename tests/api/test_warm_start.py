"""From somebody else's randomised log to a policy that serves what it learned there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.api.running import InProcess
from tests.api.test_cli import run

WORKSPACE = """
surfaces:
  mail:
    owner: growth@example.com
    attributes: {gender: string}
    metrics: {visit: {window: 1d, range: [0, 1]}}
    reward: {visit: 1.0}
    slots:
      body:
        default: none
        policy: body
        actions: {none: {value: 0}, mens: {value: 1}, womens: {value: 2}}
policies:
  body:
    kind: lin_ucb
    features: [gender]
    floor: 0.03
    candidate: {kind: lin_ts, features: [gender], gate: {rows: 100}}
"""
MAPPING = """
surface: mail
slot: body
unit: row_number
decided_at: "2024-03-01T00:00:00Z"
action: sent
propensity: 0.3333333333333333
context: {gender: string}
outcomes: {visit: visited}
"""
CHANCE = {("m", "mens"): 0.7, ("f", "womens"): 0.7}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """An e-mail test: each of three contents a third, men and women visit for their own."""
    rng = np.random.default_rng(1)
    gender = rng.choice(["m", "f"], 600)
    sent = rng.choice(["none", "mens", "womens"], 600)
    chance = [CHANCE.get(pair, 0.1) for pair in zip(gender, sent, strict=True)]
    frame = pd.DataFrame(
        {"gender": gender, "sent": sent, "visited": (rng.random(600) < chance).astype(float)}
    )
    frame.to_csv(tmp_path / "mail.csv", index=False)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "all.yaml").write_text(WORKSPACE)
    return tmp_path


def test_a_policy_serves_from_its_first_decision_what_an_imported_log_taught_it(log: Path) -> None:
    database = f"sqlite:///{log}/log.db"
    imported = run(
        "import", log / "mail.csv", "--mapping", log / "mapping.yaml",
        "--database", database, "--workspace", log / "workspace",
    )  # fmt: skip
    assert imported.status == 0, imported.err
    learned = run("learn", "--database", database, "--json").json()
    # The shadow has the same history as the policy that it stands behind.
    assert [(each["learner"], each["learned"]) for each in learned] == [("body:mail.body", 600)] * 2
    with InProcess(log / "workspace", database) as served:
        for gender, best in (("m", "mens"), ("f", "womens")):
            answers = [
                served.decide(f"{gender}{n}", "mail", context={"gender": gender}) for n in range(30)
            ]
            shown = [answer["choices"][0]["action"] for answer in answers]
            assert shown.count(best) >= 25
            assert {answer["choices"][0]["snapshot"] for answer in answers} == {
                learned[0]["snapshot"]
            }
        id_ = served.decide("again", "mail", context={"gender": "f"})["decision_id"]
        assert served.post(f"/v1/decisions/{id_}/replay").json()["identical"]


def test_tuning_and_evaluation_read_the_same_log(log: Path) -> None:
    database = f"sqlite:///{log}/log.db"
    run(
        "import", log / "mail.csv", "--mapping", log / "mapping.yaml",
        "--database", database, "--workspace", log / "workspace",
    )  # fmt: skip
    where = ("--surface", "mail", "--slot", "body", "--database", database)
    tuned = run("tune", *where, "--json").json()
    assert tuned["rows"] == 600
    assert tuned["policies"]["body"]["floor"] == 0.03
    found = run("ope", *where, "--target", "mens", "--target", "uniform", "--json").json()
    assert {r["target"] for r in found["results"]} == {"mens", "uniform"}
