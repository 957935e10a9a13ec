"""Tuning: what is better is found, nothing is made of noise, and later rows tell the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from engine.errors import ReportError
from engine.logsource import DatabaseLog
from engine.simulate import TinyWorld
from engine.simulate import run as live
from engine.store import Store
from engine.tuning import DEFAULT, Choice, fitted, played, telling, tune, tune_slot
from engine.workspace import load_workspace, workspace_from_content, written
from policies import Action, Context, Feedback
from tests.api.test_cli import run
from tests.engine.build import DAY
from tests.engine.test_promotion import CONTENT

ACTIONS = tuple(Action(name) for name in "abc")
CHEAP = Choice("lin_ucb", {"alpha": 1.5, "fourier": 32})
"""Like the default, in less time."""

Reward = Callable[[Context, str, np.random.Generator], float]


def _log(count: int, reward: Reward, seed: int = 1, noise: int = 0) -> list[Feedback]:
    """A uniform log over one telling attribute and some that say nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        context: dict[str, float | str] = {"x": float(rng.normal())}
        context |= {f"n{i}": float(rng.normal()) for i in range(noise)}
        context["segment"] = str(rng.choice(["new", "old"]))
        action = str(rng.choice(list("abc")))
        rows.append(Feedback(context, ACTIONS, action, 1 / 3, reward(context, action, rng)))
    return rows


def _nothing(context: Context, action: str, rng: np.random.Generator) -> float:
    del context
    return float(rng.random() < {"a": 0.2, "b": 0.5, "c": 0.3}[action])


def _linear(context: Context, action: str, rng: np.random.Generator) -> float:
    x = float(context["x"] or 0)
    return {"a": x, "b": -x, "c": 0.0}[action] + float(rng.normal(0, 0.3))


def test_where_attributes_say_nothing_a_choice_that_reads_none_wins() -> None:
    tuned = tune(_log(900, _nothing, noise=6), floor=0.02, default=CHEAP)
    assert tuned.winner != CHEAP
    best = tuned.tried[0]
    assert best.choice == tuned.winner
    assert best.gain > 2 * best.se


def test_among_rewards_that_are_noise_alone_the_default_wins() -> None:
    """However many choices are tried, the best of them is not better than luck makes it."""

    def luck(context: Context, action: str, rng: np.random.Generator) -> float:
        del context, action
        return float(rng.random() < 0.3)

    winners = {
        tune(_log(300, luck, seed), floor=0.02, default=CHEAP).winner.name for seed in range(3)
    }
    assert winners == {CHEAP.name}


def test_the_same_log_and_seed_give_the_same_choice() -> None:
    rows = _log(300, _linear)
    told = [tune(rows, floor=0.02, default=CHEAP, seed=5) for _ in range(2)]
    assert told[0] == told[1]


def test_too_few_rows_are_refused_with_what_to_do() -> None:
    with pytest.raises(ReportError, match="take the default, which needs no tuning"):
        tune(_log(150, _linear), floor=0.02)


def test_later_rows_tell_what_a_choice_earns_there() -> None:
    """A uniform choice earns nothing on average here, whatever it learned from."""
    covered = 0
    for seed in range(60):
        rows = _log(400, _linear, seed)
        terms, accepted = played(Choice("uniform"), rows[:200], rows[200:], 0.02, seed)
        half = 1.96 * terms.std(ddof=1) / 200**0.5
        covered += abs(terms.mean()) <= half
        # On a uniform log it draws what was drawn in a third of the rows.
        assert binom.ppf(1e-5, 200, 1 / 3) <= accepted <= binom.ppf(1 - 1e-5, 200, 1 / 3)
    assert covered >= binom.ppf(0.001, 60, 0.95)


def test_the_search_never_sees_the_rows_that_judge_it() -> None:
    """Other rewards in the last quarter change what they tell, and nothing of what was tried."""
    rows = _log(400, _linear)
    turned = [
        row if index < 300 else Feedback(row.context, row.actions, row.action, 1 / 3, -row.reward)
        for index, row in enumerate(rows)
    ]
    told, other = (tune(some, floor=0.02, default=CHEAP) for some in (rows, turned))
    assert told.tried == other.tried
    assert told.winner == other.winner
    assert told.played != other.played


def test_attributes_that_matter_are_told_from_those_that_do_not() -> None:
    assert telling(_log(900, _linear, noise=5)) == ["x"]
    assert telling(_log(900, _nothing, noise=5)) == []


@pytest.mark.parametrize(("reward", "most"), [(_linear, 3), (_nothing, 30)])
def test_a_world_is_as_noisy_as_its_log(reward: Reward, most: int) -> None:
    """Where like contexts earn alike few neighbours stand in; where all is luck, many."""
    rows = _log(600, reward)
    world = fitted(rows, seed=0)
    neighbours = world.near["a"].shape[1]
    assert (neighbours <= 10) if most == 3 else (neighbours == most)
    index = next(i for i, row in enumerate(rows) if row.action == "a")
    assert world.reward(index, "a", 0.5) == rows[index].reward
    others = [rows[j].action for j in world.near["b"][index]]
    assert set(others) == {"b"}
    assert index not in world.near["a"][index]


def test_contexts_that_are_empty_make_a_world_too() -> None:
    rows = [Feedback({}, ACTIONS, row.action, 1 / 3, row.reward) for row in _log(300, _nothing)]
    assert tune(rows, floor=0.02, default=Choice("thompson_gaussian")).winner is not None


# On a log -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A uniformly logged tiny world, which lin_ucb solves."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "all.yaml").write_text(written(msgspec.json.decode(msgspec.json.encode(CONTENT))))
    url = f"sqlite:///{folder}/log.db"
    with Store(url, writer="tests") as store:
        for _ in live(TinyWorld(1, 250), load_workspace(folder), store, days=2, warn=print):
            pass
    return url


def test_what_is_written_is_a_policy_that_a_workspace_can_declare(
    database: str, tmp_path: Path
) -> None:
    file = tmp_path / "tuned.yaml"
    where = ("--surface", "page", "--slot", "box", "--database", database)
    told = run("tune", *where, "--to", file)
    assert told.status == 0, told.err
    assert "lin_ucb" in told.out
    assert f"written to {file}" in " ".join(told.out.split())
    content = msgspec.json.decode(msgspec.json.encode(CONTENT))
    content["policies"] = _parts(file)
    assert workspace_from_content(msgspec.json.encode(content)).policies["p"].floor == 0.1
    again = run("tune", *where, "--to", file)
    assert again.status == 2
    assert "which exists" in again.err


def _parts(file: Path) -> dict[str, object]:
    from ruamel.yaml import YAML  # noqa: PLC0415

    found: dict[str, object] = YAML(typ="safe").load(file)["policies"]
    return found


def test_a_report_has_what_was_tried_and_what_later_rows_say(database: str) -> None:
    source = DatabaseLog(database)
    try:
        report = tune_slot(source, "page", "box", as_of_us=30_000 * DAY, floor=0.05)
    finally:
        source.close()
    assert report["rows"] == 500
    assert report["later"]["rows"] == 125
    assert report["policies"]["p"]["floor"] == 0.05
    assert {t["choice"] for t in report["tried"]} >= {DEFAULT.name, "lin_greedy"}
