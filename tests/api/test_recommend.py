"""``POST /v1/recommend`` and ``/v1/items``: slates of their own, and the items they are made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from engine.exporting import export
from engine.ids import rfc3339, system_clock
from engine.log import InteractionsEntry, UnitInteraction
from engine.logsource import ExportedLog
from engine.record import decode_record, encode_record, fillings_of
from engine.store import Store
from engine.store import read as ask
from tests.api.running import PROBLEM, InProcess, broken, busy, file_of, until
from tests.api.workspaces import write_slates, write_workspace
from tests.engine.build import HOUR

GOODS = {
    f"g{n}": {"price": 10.0 * n, "stock": 5, "kind": "odd" if n % 2 else "even"} for n in range(8)
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("shelf")
    workspace = write_slates(write_workspace(folder / "workspace"))
    with InProcess(workspace, f"sqlite:///{folder}/log.db") as served:
        goods = [{"item_id": id_, "attributes": item} for id_, item in GOODS.items()]
        assert served.post("/v1/items", goods).json() == {"accepted": 8, "unchanged": 0}
        yield served


def recommend(shelf: InProcess, **more: Any) -> dict[str, Any]:
    response = shelf.post("/v1/recommend", {"surface": "shelf", "user_id": "u1", **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def only_fault(response: httpx.Response, status: int = 400) -> tuple[str, str]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    (fault,) = response.json()["errors"]
    return fault["field"], fault["message"]


def test_a_slate_has_ranked_items_with_scores_and_a_trace(shelf: InProcess) -> None:
    answer = recommend(shelf, k=4)
    assert len(ids(answer)) == len(set(ids(answer))) == 4
    assert [item["position"] for item in answer["items"]] == [1, 2, 3, 4]
    assert all(0 < item["propensity"] <= 1 for item in answer["items"])
    assert answer["slate"] == "shelf"
    assert answer["logged"]


def test_the_slate_says_how_many_where_the_caller_does_not(shelf: InProcess) -> None:
    assert len(ids(recommend(shelf))) == 3


def test_what_is_excluded_or_does_not_match_is_refilled(shelf: InProcess) -> None:
    answer = recommend(
        shelf,
        exclude=["g0", "g1"],
        filters={"price": {"min": 20, "max": 50}},
        context={"budget": 40},
    )
    assert set(ids(answer)) == {"g2", "g3", "g4"}
    one = recommend(shelf, filters={"kind": "odd"}, k=4)
    assert len(ids(one)) == 2
    assert "limits leave room for no more" in one["shortfall"]


def test_a_slate_alone_is_explained_replayed_shown_and_followed_by_outcomes(
    shelf: InProcess,
) -> None:
    answer = recommend(shelf, exclude=["g3"], decision_id="of-a-page")
    id_ = answer["trace_id"]
    document = shelf.get(f"/v1/decisions/{id_}").json()
    assert document["choices"] == []
    assert [item["item_id"] for item in document["slates"]["shelf"]["items"]] == ids(answer)
    assert {"rule": "excluded", "items": ["g3"]}.items() <= next(
        entry for entry in document["slates"]["shelf"]["removed"] if entry["rule"] == "excluded"
    ).items()
    assert document["recommended"]["decision_id"] == "of-a-page"
    assert document["slates"]["shelf"]["exploration"] == {"temperature": 0.1, "epsilon": 0.1}
    assert shelf.post(f"/v1/decisions/{id_}/replay").json()["identical"]
    shown = shelf.post("/v1/exposures", {"decision_id": id_, "slots": ["shelf"]}).json()
    assert shown == {"accepted": 1, "duplicates": 0, "unmatched": 0}
    outcome = {"outcome_id": f"o-{id_}", "decision_id": id_, "metric": "watch", "value": 1}
    assert shelf.post("/v1/outcomes", outcome | {"item_id": ids(answer)[0]}).status_code == 200
    assert shelf.get(f"/v1/decisions/{id_}").json()["outcomes"][0]["item_id"] == ids(answer)[0]


def test_an_altered_draw_is_told_by_the_replay(shelf: InProcess) -> None:
    """A replay works out anew what positions were drawn with, by the hash that is documented."""
    id_ = recommend(shelf, k=4)["trace_id"]
    with closing(sqlite3.connect(file_of(shelf.database))) as connection, connection:
        (data,) = connection.execute(
            "SELECT record FROM decisions WHERE decision_id = ?", (id_,)
        ).fetchone()
        record = decode_record(data)
        filling = fillings_of(record)["shelf"]
        assert filling.trace.uniforms
        moved = tuple((u + 0.37) % 1 for u in filling.trace.uniforms)
        altered = replace(filling, trace=replace(filling.trace, uniforms=moved))
        connection.execute(
            "UPDATE decisions SET record = ? WHERE decision_id = ?",
            (encode_record(replace(record, fillings={"shelf": altered})), id_),
        )
    replayed = shelf.post(f"/v1/decisions/{id_}/replay").json()
    assert not replayed["identical"]
    assert replayed["differences"][0]["field"].startswith("fillings.shelf.trace.uniforms")


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"surface": "shelf"}, "user_id", "is missing"),
        ({"k": 0}, "k", "give 1 to 1,000"),
        ({"k": 1001}, "k", "give 1 to 1,000"),
        ({"k": "ten"}, "k", "give an integer"),
        ({"slate": "other"}, "slate", "not declared"),
        ({"exclude": [""]}, "exclude[0]", "is empty"),
        ({"filters": {"colour": "red"}}, "filters", "no declared attribute"),
        ({"filters": {"price": "cheap"}}, "filters", "cheap"),
        ({"context": {"budget": "ten"}}, "context.budget", "finite number"),
        ({"seed": ["g1"]}, "seed", 'did you mean "seeds"'),
        ({"deadline_ms": 0}, "deadline_ms", "milliseconds"),
    ],
    ids=str,
)
def test_what_a_slate_cannot_be_asked_is_told(
    shelf: InProcess, body: dict[str, Any], field: str, said: str
) -> None:
    whole = body if "surface" in body else {"surface": "shelf", "user_id": "u1", **body}
    told = only_fault(shelf.post("/v1/recommend", whole))
    assert told[0] == field
    assert said in told[1]


def test_an_unknown_surface_is_not_found_and_one_without_slates_has_none(shelf: InProcess) -> None:
    unknown = shelf.post("/v1/recommend", {"surface": "nowhere", "user_id": "u"})
    assert only_fault(unknown, 404)[0] == "surface"
    none = shelf.post("/v1/recommend", {"surface": "home", "user_id": "u"})
    assert only_fault(none)[1].endswith("surface home has none: name one")


def test_without_a_log_the_items_are_answered_and_marked(shelf: InProcess) -> None:
    with busy(shelf.database):
        answer = recommend(shelf, deadline_ms=300)
    assert answer["trace_id"] is None
    assert not answer["logged"]
    assert answer["fallback"] == "deadline"
    assert len(ids(answer)) == 3
    with broken(shelf.database, "interactions"):
        refused = shelf.post("/v1/recommend", {"surface": "shelf", "user_id": "u1"})
    assert refused.status_code == 503


def test_an_empty_catalogue_says_so(tmp_path: Path) -> None:
    workspace = write_slates(write_workspace(tmp_path / "workspace"))
    with InProcess(workspace, f"sqlite:///{tmp_path}/log.db") as served:
        answer = recommend(served)
        assert answer["items"] == []
        assert answer["shortfall"] == "0 of 3 items: the catalogue is empty"
        assert served.decide("u", "shelf")["slates"]["shelf"]["items"] == []


def test_a_slate_by_reference_says_what_to_call(tmp_path: Path) -> None:
    workspace = write_slates(write_workspace(tmp_path / "workspace"))
    file = workspace / "slates.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("    k: 3\n", "    k: 3\n    deliver: reference\n"), encoding="utf-8"
    )
    with InProcess(workspace, f"sqlite:///{tmp_path}/log.db") as served:
        goods = [{"item_id": id_, "attributes": item} for id_, item in GOODS.items()]
        served.post("/v1/items", goods)
        decision = served.decide("u1", "shelf")
        slate = decision["slates"]["shelf"]
        assert slate["items"] == []
        call = slate["call"]
        assert call == {
            "surface": "shelf",
            "slate": "shelf",
            "k": 3,
            "decision_id": decision["decision_id"],
        }
        assert len(ids(recommend(served, **call))) == 3
        assert served.post(f"/v1/decisions/{decision['decision_id']}/replay").json()["identical"]


def test_a_peek_has_slates_and_logs_nothing(shelf: InProcess) -> None:
    answer = shelf.decide("peeker", "shelf", mode="peek")
    assert len(answer["slates"]["shelf"]["items"]) == 3
    assert answer["decision_id"] is None


def test_a_repeated_request_has_the_same_slate(shelf: InProcess) -> None:
    first = shelf.decide("again", "shelf", request_id="same")
    shelf.post("/v1/items", {"item_id": "g7", "attributes": {"stock": 4}})
    assert shelf.decide("again", "shelf", request_id="same") == first


# Items --------------------------------------------------------------------------------------------


def test_an_item_is_read_back_with_the_times_of_its_values(shelf: InProcess) -> None:
    at = rfc3339(system_clock() - HOUR)
    body = {"item_id": "x", "attributes": {"price": 3, "published": "2026-01-01T00:00:00Z"}}
    assert shelf.request("PUT", "/v1/items", json=body | {"at": at}).status_code == 200
    assert shelf.post("/v1/items", {"item_id": "x", "attributes": {"stock": 1}}).status_code == 200
    document = shelf.get("/v1/items/x").json()
    assert document["attributes"]["price"] == {"value": 3.0, "at": at}
    assert document["attributes"]["published"]["value"] == "2026-01-01T00:00:00.000000Z"
    assert document["attributes"]["stock"]["at"] > at
    assert shelf.request("DELETE", "/v1/items/x").json() == {"removed": True}
    assert shelf.get("/v1/items/x").status_code == 404


def test_an_item_whose_id_has_a_slash_is_found_under_it(shelf: InProcess) -> None:
    shelf.post("/v1/items", {"item_id": "films/1", "attributes": {"stock": 1}})
    assert shelf.get("/v1/items/films%2F1").json()["item_id"] == "films/1"
    assert shelf.request("DELETE", "/v1/items/films/1").json() == {"removed": True}


def test_news_that_say_nothing_new_are_counted_so(shelf: InProcess) -> None:
    at = rfc3339(system_clock() - HOUR)
    body = {"item_id": "y", "attributes": {"price": 3}, "at": at}
    assert shelf.post("/v1/items", body).json() == {"accepted": 1, "unchanged": 0}
    assert shelf.post("/v1/items", body).json() == {"accepted": 0, "unchanged": 1}
    shelf.request("DELETE", "/v1/items/y")


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "item_id", "is missing"),
        ({"item_id": ""}, "item_id", "is empty"),
        ({"item_id": "i", "attributes": {"colour": "red"}}, "attributes.colour", "known: "),
        ({"item_id": "i", "attributes": {"price": "dear"}}, "attributes.price", "finite number"),
        (
            {"item_id": "i", "attributes": {"regions": "DE"}},
            "attributes.regions",
            "list of strings",
        ),
        ({"item_id": "i", "attributes": {"published": 5}}, "attributes.published", "RFC 3339"),
        ({"item_id": "i", "attributes": {"kind": "k" * 2000}}, "attributes.kind", "at most 1,000"),
        ({"item_id": "i", "vector": [1.0]}, "vector", "items.vector_size"),
        ({"item_id": "i", "vector": []}, "vector", "items.vector_size"),
        ({"item_id": "i", "at": "yesterday"}, "at", "RFC 3339"),
        ({"item_id": "i", "at": "1999-01-01T00:00:00Z"}, "at", "400 days"),
        ({"item_id": "i", "removed": True, "attributes": {"price": 1}}, "removed", "beside news"),
        ({"item_id": "i", "block": True}, "block", 'did you mean "blocked"'),
        ([], "", "at least one"),
        (
            [{"item_id": "g1"}, {"item_id": "i", "attributes": {"price": []}}],
            "[1].attributes.price",
            "",
        ),
    ],
    ids=str,
)
def test_faults_of_items_are_told_and_nothing_is_stored(
    shelf: InProcess, body: Any, field: str, said: str
) -> None:
    told = only_fault(shelf.post("/v1/items", body))
    assert told[0] == field
    assert said in told[1]
    assert shelf.get("/v1/items/i").status_code == 404


@pytest.mark.parametrize("change", [{"blocked": True}, {"removed": True}, {"blocked": False}])
def test_a_block_of_nothing_is_refused(shelf: InProcess, change: dict[str, bool]) -> None:
    told = only_fault(shelf.post("/v1/items", {"item_id": "typo", **change}), 404)
    assert told == ("item_id", '"typo" is no item; mend the id, or send the item')


def test_a_correction_cannot_name_an_item(shelf: InProcess) -> None:
    of = {"user_id": "u1", "metric": "watch", "value": 1.0}
    shelf.post("/v1/outcomes", {"outcome_id": "c-1", "item_id": "g1", **of})
    second = {"outcome_id": "c-2", "corrects": "c-1", "item_id": "g2", **of}
    assert only_fault(shelf.post("/v1/outcomes", second))[0] == "item_id"


def test_other_methods_are_told_which_are_allowed(shelf: InProcess) -> None:
    refused = shelf.request("DELETE", "/v1/items")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "POST, PUT"
    refused = shelf.request("PATCH", "/v1/items/g1")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "DELETE, GET"


# Replicas -----------------------------------------------------------------------------------------


def test_replicas_follow_items_and_fill_alike(postgres_url: str, tmp_path: Path) -> None:
    workspace = write_slates(write_workspace(tmp_path / "workspace"))
    with InProcess(workspace, postgres_url) as one, InProcess(workspace, postgres_url) as other:
        goods = [{"item_id": id_, "attributes": item} for id_, item in GOODS.items()]
        one.post("/v1/items", goods)
        other.run(other.engine.follow_once)
        first = one.decide("u", "shelf", request_id="r")
        assert other.decide("u", "shelf", request_id="r") == first
        one.post("/v1/items", {"item_id": "g1", "blocked": True})
        until(lambda: "g1" not in peeked(other), "the other replica to follow")
        trace = first["decision_id"]
        assert other.post(f"/v1/decisions/{trace}/replay").json()["identical"]


def peeked(served: InProcess) -> set[str]:
    """What is shown over some peeks, as the replica goes on by itself."""
    found: set[str] = set()
    for number in range(5):
        answer = served.decide(f"p{number}", "shelf", mode="peek", context={})
        found |= {item["item_id"] for item in answer["slates"]["shelf"]["items"]}
    return found


# What becomes of the log --------------------------------------------------------------------------


def test_an_export_has_every_item_that_was_shown(shelf: InProcess, tmp_path: Path) -> None:
    decision = shelf.decide("exported", "shelf")
    alone = recommend(shelf, user_id="exported", k=2)
    outcome = {"outcome_id": "x-1", "decision_id": alone["trace_id"], "metric": "watch", "value": 2}
    assert shelf.post("/v1/outcomes", outcome).status_code == 200
    with Store(shelf.database) as store:
        counts = export(store, tmp_path)
    rows = pq.read_table(tmp_path / "slates").to_pylist()
    assert counts["items shown"] == len(rows)
    ours = [row for row in rows if row["unit"] == "u:exported"]
    shown: dict[str, list[Any]] = {}
    for row in ours:
        shown.setdefault(row["decision_id"], []).append(
            (row["position"], row["item_id"], row["propensity"])
        )
    for id_, items in (
        (decision["decision_id"], decision["slates"]["shelf"]["items"]),
        (alone["trace_id"], alone["items"]),
    ):
        assert shown[id_] == [(i["position"], i["item_id"], i["propensity"]) for i in items]
    # The unit of an outcome that followed a slate alone is known from there.
    (told,) = (
        row
        for row in ExportedLog(tmp_path).outcomes(["watch"]).to_pylist()
        if row["outcome_id"] == "x-1"
    )
    assert told["unit"] == "u:exported"


def test_forgetting_a_person_deletes_what_they_did_with_items(tmp_path: Path) -> None:
    workspace = write_slates(write_workspace(tmp_path / "workspace"))
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(workspace, database) as served:
        goods = [{"item_id": id_, "attributes": item} for id_, item in GOODS.items()]
        served.post("/v1/items", goods)
        of = {"metric": "watch", "value": 1, "item_id": "g5"}
        decision = served.decide("jane-doe", "shelf")
        alone = recommend(served, user_id="jane-doe", exclude=["g6"], seeds=["g7"])
        for body in (
            {"outcome_id": "jane-1", "user_id": "jane-doe", **of},
            {"outcome_id": "jane-2", "decision_id": decision["decision_id"], **of},
            {"outcome_id": "john-1", "user_id": "john-roe", **of},
        ):
            assert served.post("/v1/outcomes", body).status_code == 200
        # As of a file, which no outcome told of.
        before = UnitInteraction("f:1", "u:jane-doe", "g4", "view", 1.0, 1, 1)
        served.engine._store.write([InteractionsEntry((before,))], system_clock())
        assert served.post("/v1/forget", {"user_id": "jane-doe"}).status_code == 200
        _, left = served.engine._store.read(lambda c: ask.interactions_after(c, 0, 10))
        assert [one.unit for one in left] == ["u:john-roe"]
        document = served.get(f"/v1/decisions/{alone['trace_id']}").json()
        assert document["recommended"]["exclude"] == document["recommended"]["seeds"] == []
        shown = document["slates"]["shelf"]
        assert [item["item_id"] for item in shown["items"]] == ids(alone)
        assert "removed" not in shown
        replayed = served.post(f"/v1/decisions/{decision['decision_id']}/replay")
        assert replayed.status_code == 409
    for file in tmp_path.glob("log.db*"):
        assert b"jane-doe" not in file.read_bytes()
