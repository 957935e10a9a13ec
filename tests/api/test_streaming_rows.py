"""The rows of scenario S1: a Wednesday evening on the streaming service's home page."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from engine.ids import rfc3339, system_clock
from engine.store import ModelStore, Store
from engine.training import train_recommender
from tests.api.running import InProcess
from tests.engine.build import DAY, SAMPLE

GENRES = ("drama", "comedy", "crime", "nature", "kids", "history")
EVENING = {"device": "tv", "hour": 20, "weeks": 6, "country": "DE", "churn_risk": 0.8, "plan": "hd"}
TITLES = {
    f"title-{n:04}": {
        "title": f"Title {n}",
        "genre": GENRES[n % 6],
        "franchise": f"franchise-{n // 8}",
        "format": "series" if n % 3 else "film",
        "countries": ["DE", "AT"] if n % 50 else ["US"],
        "licensed": n % 40 != 7,
        "shown_today": 0,
        "most_a_day": 0 if n % 100 == 3 else 1_000,
        "sponsored": n % 300 == 5,
        "published": "2025-06-01T00:00:00Z",
    }
    for n in range(1_200)
}
FINISHED = [f"title-{n:04}" for n in (12, 18, 24)]
"""Three episodes of one show and its kin, finished this week."""
LONG_AGO = [f"title-{n:04}" for n in range(0, 120, 6)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("home")
    database = f"sqlite:///{folder}/log.db"
    with InProcess(SAMPLE, database) as served:
        titles = [{"item_id": id_, "attributes": item} for id_, item in TITLES.items()]
        for start in range(0, len(titles), 1_000):
            assert served.post("/v1/items", titles[start : start + 1_000]).status_code == 200
        chance = random.Random(1)
        for viewer in range(40):
            genre = viewer % 6
            seen = chance.sample(range(genre, 1_200, 6), 12)
            watch(served, f"other-{viewer}", [f"title-{n:04}" for n in seen], days_ago=30)
        yield served


def watch(home: InProcess, user: str, items: list[str], days_ago: float) -> None:
    at = rfc3339(system_clock() - int(days_ago * DAY))
    outcomes = [
        {
            "outcome_id": f"{user}-{item}-{days_ago}",
            "user_id": user,
            "metric": "watch",
            "value": 1.0,
            "item_id": item,
            "occurred_at": at,
        }
        for item in items
    ]
    assert home.post("/v1/outcomes", outcomes).status_code == 200


@pytest.fixture(scope="module")
def decision(home: InProcess) -> dict[str, Any]:
    """Layout B for a viewer who finished three episodes this week."""
    more: dict[str, Any] = {"context": EVENING, "trigger": "session_start"}
    found = home.decide_where(
        lambda answer: (
            answer["config"]["layout"]["rows"][0] == "continue"
            and "because" in answer["config"]["layout"]["rows"]
        ),
        **more,
    )
    user = found["unit"].removeprefix("u:")
    watch(home, user, LONG_AGO, days_ago=30)
    watch(home, user, FINISHED, days_ago=2)
    database = home.database
    with Store(database) as store:
        workspace = home.engine.workspace
        train_recommender(
            store,
            ModelStore(database),
            workspace,
            workspace.recommenders["embedded"],
            now_us=system_clock(),
        )
    home.run(home.engine.follow_models)
    # The layout may be drawn anew with each decision: the first that is B again is meant.
    for number in range(200):
        answer = home.decide(user, request_id=f"evening-{number}", **more)
        if "because" in answer["config"]["layout"]["rows"]:
            return answer
    raise AssertionError("layout B is not drawn again")


def test_layout_b_calls_for_two_rows_and_no_more(decision: dict[str, Any]) -> None:
    assert decision["config"]["layout"]["rows"] == [
        *("continue", "because", "editorial"),
        "carousel",
    ]
    assert set(decision["slates"]) == {"because_you", "carousel"}


def test_the_carousel_keeps_its_rules(decision: dict[str, Any]) -> None:
    row = decision["slates"]["carousel"]
    shown = [item["item_id"] for item in row["items"]]
    assert len(shown) == len(set(shown)) == 20
    franchises = Counter(TITLES[id_]["franchise"] for id_ in shown)
    assert max(franchises.values()) <= 3
    assert not set(shown) & set(FINISHED)
    for id_ in shown:
        assert "DE" in TITLES[id_]["countries"]  # type: ignore[operator]  # a list
        assert TITLES[id_]["licensed"]
        assert TITLES[id_]["most_a_day"] == 1_000
    assert row["trace_id"].endswith("/carousel")
    assert all(isinstance(item["score"], float) for item in row["items"])
    assert all(0 < item["propensity"] <= 1 for item in row["items"])
    fifth = row["items"][4]
    assert fifth["placed"] == "sponsored"
    assert TITLES[fifth["item_id"]]["sponsored"]


def test_the_second_row_says_what_it_is_because_of(decision: dict[str, Any]) -> None:
    row = decision["slates"]["because_you"]
    assert len(row["items"]) == 10
    because = {item["because"] for item in row["items"]} - {""}
    assert because
    assert because <= set(FINISHED) | set(LONG_AGO)
    assert not {item["item_id"] for item in row["items"]} & set(FINISHED)


def test_the_rows_are_explained_replayed_and_timed(
    home: InProcess, decision: dict[str, Any]
) -> None:
    id_ = decision["decision_id"]
    slates = home.get(f"/v1/decisions/{id_}").json()["slates"]
    carousel = slates["carousel"]
    assert carousel["objective"] == "watch"
    assert carousel["candidates"] >= 1_000
    assert {entry["rule"] for entry in carousel["removed"]} >= {"in_region", "licensed"}
    licensed = next(e for e in carousel["removed"] if e["rule"] == "licensed")
    assert licensed["owner"] == "rights@example.com"
    assert licensed["when"] == "item.licensed"
    assert set(carousel["timings_ms"]) >= {"scoring", "composition"}
    assert home.post(f"/v1/decisions/{id_}/replay").json()["identical"]


def test_the_flat_layout_calls_for_none(home: InProcess) -> None:
    flat = home.decide_where(
        lambda answer: answer["config"]["layout"] == {"rows": ["carousel"]}, context=EVENING
    )
    assert flat["slates"] == {}
