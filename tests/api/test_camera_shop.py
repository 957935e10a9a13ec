"""Scenario S2: accessories for a camera, over HTTP from the catalogue to the returned purchase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.ids import rfc3339, system_clock
from engine.recommending import MOST_INTERACTIONS
from engine.record import decode_record
from engine.rewards import metric_values, reward
from engine.store import read as ask
from tests.api.running import InProcess
from tests.engine.build import DAY, HOUR
from tests.engine.shop import SHOP, STOCKED

VIEWING = {"viewing": "camera-c", "region": "DE"}
BUYERS = 6


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "workspace").mkdir()
    (folder / "workspace" / "shop.yaml").write_text(SHOP, encoding="utf-8")
    with InProcess(folder / "workspace", f"sqlite:///{folder}/log.db") as served:
        tell(served, STOCKED)
        # Others bought everything with the camera, which is what a weak engine goes by.
        for buyer in range(BUYERS):
            for item_id in STOCKED:
                outcome(served, "purchase", item_id, user_id=f"buyer-{buyer}", days_ago=20)
        # Our visitor bought a strap last week, and returned a bag last month.
        outcome(served, "purchase", "strap", user_id="visitor", days_ago=7)
        outcome(served, "purchase", "bag", user_id="visitor", days_ago=45)
        outcome(served, "returned", "bag", user_id="visitor", days_ago=30)
        yield served


def tell(shop: InProcess, items: dict[str, dict[str, Any]], **more: Any) -> None:
    body = [{"item_id": id_, "attributes": item, **more} for id_, item in items.items()]
    response = shop.post("/v1/items", body)
    assert response.status_code == 200, response.text


def outcome(
    shop: InProcess, metric: str, item_id: str | None = None, days_ago: float = 0, **more: Any
) -> str:
    number = outcome.__dict__["number"] = outcome.__dict__.get("number", 0) + 1
    body = {
        "outcome_id": f"outcome-{number}",
        "metric": metric,
        "value": 1.0,
        "item_id": item_id,
        "occurred_at": rfc3339(system_clock() - int(days_ago * DAY)),
        **more,
    }
    response = shop.post("/v1/outcomes", body)
    assert response.status_code == 200, response.text
    return str(body["outcome_id"])


def shown(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["slates"]["accessories"]["items"]]


def explained(shop: InProcess, answer: dict[str, Any]) -> dict[str, Any]:
    document = shop.get(f"/v1/decisions/{answer['decision_id']}").json()
    slate: dict[str, Any] = document["slates"]["accessories"]
    return slate


def removed(slate: dict[str, Any]) -> dict[str, set[str]]:
    """By item, the rules that kept it out."""
    found: dict[str, set[str]] = {}
    for entry in slate["removed"]:
        for item_id in entry["items"]:
            found.setdefault(item_id, set()).add(entry["rule"])
    return found


def test_only_what_fits_is_there_and_was_not_bought_or_returned_lately_is_shown(
    shop: InProcess,
) -> None:
    answer = shop.decide("visitor", "product", context=VIEWING, trigger="product_view")
    assert set(shown(answer)) <= {"lens-m", "card", "bundle"}
    assert len(shown(answer)) == 3
    assert [item["position"] for item in answer["slates"]["accessories"]["items"]] == [1, 2, 3]


def test_what_was_bought_stays_out_however_much_was_viewed_since(shop: InProcess) -> None:
    outcome(shop, "purchase", "card", user_id="browser", days_ago=7)
    views = [
        {"outcome_id": f"view-{n}", "user_id": "browser", "metric": "viewed", "item_id": "bag"}
        for n in range(MOST_INTERACTIONS)
    ]
    for start in range(0, len(views), 100):
        response = shop.post("/v1/outcomes", [v | {"value": 1} for v in views[start : start + 100]])
        assert response.status_code == 200, response.text
    answer = shop.decide("browser", "product", context=VIEWING)
    assert "card" not in shown(answer)
    assert removed(explained(shop, answer))["card"] == {"recent_purchase"}


def test_each_item_that_is_kept_out_has_its_own_rule(shop: InProcess) -> None:
    answer = shop.decide("visitor", "product", context=VIEWING)
    slate = explained(shop, answer)
    why = removed(slate)
    assert why["lens-n"] == {"compatible"}
    assert why["battery"] == {"in_stock"}
    assert why["warranty"] == {"in_region"}
    assert why["strap"] == {"recent_purchase"}
    assert why["bag"] == {"recent_return"}
    assert why["camera-c"] == {"seed"}
    reasons = {entry["rule"]: entry["reason"] for entry in slate["removed"]}
    assert reasons["in_stock"] == "out of stock"


def test_the_boost_of_the_bundle_shows_with_its_amount(shop: InProcess) -> None:
    answer = shop.decide("visitor", "product", context=VIEWING)
    assert shown(answer)[0] == "bundle"
    placed = {p["item_id"]: p["amounts"] for p in explained(shop, answer)["explained"]}
    assert placed["bundle"] == {"push_bundles": pytest.approx(0.3)}
    assert placed["card"] == {}


def test_what_others_also_bought_breaks_at_least_four_rules(shop: InProcess) -> None:
    """The weak engine: what was bought most by those who bought the camera."""
    _, log = shop.engine._store.read(lambda c: ask.interactions_after(c, 0, 1_000))
    bought = [(one.unit, one.item_id) for one in log if one.kind == "purchase"]
    alike = {unit for unit, item_id in bought if item_id == "camera-c"}
    counts = Counter(i for unit, i in bought if unit in alike and i != "camera-c")
    also_bought = [item_id for item_id, _ in counts.most_common(8)]
    why = removed(explained(shop, shop.decide("visitor", "product", context=VIEWING)))
    broken = {rule for item_id in also_bought for rule in why.get(item_id, set())}
    assert broken >= {"compatible", "in_stock", "in_region", "recent_purchase", "recent_return"}


def test_where_the_region_is_unknown_no_gate_opens(shop: InProcess) -> None:
    answer = shop.decide("visitor", "product", context={"viewing": "camera-c"})
    assert shown(answer) == []
    assert "in_region" in answer["slates"]["accessories"]["shortfall"]


def test_a_slate_of_what_nothing_is_known_says_so(shop: InProcess) -> None:
    answer = shop.decide("visitor", "product", context={"viewing": "gone", "region": "DE"})
    assert shown(answer) == []
    assert "the catalogue has none of: gone" in answer["slates"]["accessories"]["shortfall"]


def test_a_decision_with_its_slate_is_replayed_byte_for_byte(shop: InProcess) -> None:
    answer = shop.decide("visitor", "product", context=VIEWING)
    # The catalogue moves on; what was logged does not.
    tell(shop, {"lens-m": {"stock": 0}})
    replayed = shop.post(f"/v1/decisions/{answer['decision_id']}/replay").json()
    assert replayed == {
        "decision_id": answer["decision_id"],
        "identical": True,
        "differences": [],
        "largest_difference": 0.0,
    }
    tell(shop, {"lens-m": {"stock": 5}})


def test_what_is_sold_out_or_blocked_is_gone_with_the_next_call(shop: InProcess) -> None:
    tell(shop, {"card": {"stock": 0}})
    assert "card" not in shown(shop.decide("v2", "product", context=VIEWING))
    tell(shop, {"card": {"stock": 9}})
    assert shop.post("/v1/items", {"item_id": "card", "blocked": True}).status_code == 200
    answer = shop.decide("v2", "product", context=VIEWING)
    assert "card" not in shown(answer)
    assert removed(explained(shop, answer))["card"] == {"blocked"}
    assert shop.post("/v1/items", {"item_id": "card", "blocked": False}).status_code == 200
    assert "card" in shown(
        shop.decide("v3", "product", context=VIEWING | {"cart": ["strap", "bag"]})
    )


def test_a_purchase_joins_its_decision_and_a_return_takes_the_margin_back(
    shop: InProcess,
) -> None:
    answer = shop.decide("happy", "product", context=VIEWING)
    decision = {"decision_id": answer["decision_id"]}
    outcome(shop, "purchase", "bundle", **decision)
    earned = outcome(shop, "margin", value=120.0, **decision)
    document = shop.get(f"/v1/decisions/{answer['decision_id']}").json()
    assert [(o["metric"], o["item_id"]) for o in document["outcomes"]] == [
        ("purchase", "bundle"),
        ("margin", None),
    ]
    assert margin(shop, answer) == 120.0
    # It is recommended no more: it was bought just now.
    assert "bundle" not in shown(shop.decide("happy", "product", context=VIEWING))
    outcome(shop, "returned", "bundle", **decision)
    outcome(shop, "margin", value=-8.0, corrects=earned, **decision)
    assert margin(shop, answer) == -8.0
    after = shop.decide("happy", "product", context=VIEWING)
    assert removed(explained(shop, after))["bundle"] == {"recent_purchase", "recent_return"}


def margin(shop: InProcess, answer: dict[str, Any]) -> float:
    """The reward of a decision from its outcomes, once its windows are over."""
    engine, id_ = shop.engine, answer["decision_id"]
    outcomes = engine._store.read(lambda c: ask.outcomes_of_decisions(c, [id_]))
    stored = engine._store.read(lambda c: ask.decision(c, id_))
    assert stored is not None
    surface = engine.workspace.surfaces["product"]
    decided_at = decode_record(stored.data).decided_at
    return reward(surface, metric_values(surface, decided_at, outcomes, surface.reward))


def test_what_depends_on_stock_that_is_stale_is_withheld_and_the_decision_marked(
    tmp_path: Path,
) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "shop.yaml").write_text(SHOP, encoding="utf-8")
    with InProcess(tmp_path / "workspace", f"sqlite:///{tmp_path}/log.db") as shop:
        old = rfc3339(system_clock() - 2 * HOUR)
        tell(shop, STOCKED, at=old)
        guide = {"type": "article", "compatible_with": ["mount-m"]}
        tell(shop, {"care-guide": guide})
        answer = shop.decide("visitor", "product", context=VIEWING)
        assert shown(answer) == ["care-guide"]
        assert answer["slates"]["accessories"]["stale"] == ["stock"]
        assert removed(explained(shop, answer))["bundle"] == {"stock_fresh"}
        tell(shop, {id_: {"stock": item["stock"]} for id_, item in STOCKED.items()})
        fresh = shop.decide("visitor", "product", context=VIEWING)
        assert fresh["slates"]["accessories"]["stale"] == []
        assert "bundle" in shown(fresh)
