"""What is logged trains models that a running server follows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.ids import rfc3339, system_clock
from engine.revisions import Revisions
from engine.store import ModelStore, Store
from engine.store.models import MOST_KEPT
from engine.training import Scored, as_table, logged, train_recommender, train_scorer
from engine.workspace import load_workspace
from tests.api.running import InProcess, Server, evenhand, until
from tests.engine.build import DAY, HOUR

TASTES = {"thriller": [f"t{i}" for i in range(6)], "comedy": [f"c{i}" for i in range(6)]}
CINEMA = """
items:
  attributes: {genre: {type: string, role: category}}
  interactions: {watch: finish}
surfaces:
  home:
    owner: tv@example.com
    attributes: {kids: boolean}
    metrics: {watch: {window: 1d}}
    slots:
      rows:
        default: all
        actions:
          all: {value: {}, slates: [for_you]}
slates:
  for_you:
    owner: tv@example.com
    k: 3
    keep_out: {recent: {finish: 7d}}
"""


@pytest.fixture
def cinema(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "cinema.yaml").write_text(CINEMA, encoding="utf-8")
    return folder


def tell_titles(served: InProcess) -> None:
    titles = [
        {"item_id": id_, "attributes": {"genre": genre}}
        for genre, ids in TASTES.items()
        for id_ in ids
    ]
    assert served.post("/v1/items", titles).status_code == 200


def watch(served: InProcess, user: str, *items: str, days_ago: float = 10) -> None:
    at = rfc3339(system_clock() - int(days_ago * DAY))
    outcomes = [
        {
            "outcome_id": f"{user}-{item}",
            "user_id": user,
            "metric": "watch",
            "value": 1.0,
            "item_id": item,
            "occurred_at": at,
        }
        for item in items
    ]
    assert served.post("/v1/outcomes", outcomes).status_code == 200


def watch_by_taste(served: InProcess) -> None:
    """Each of twenty viewers watches five titles of one genre."""
    for number in range(20):
        ids = TASTES["thriller" if number % 2 else "comedy"]
        watch(served, f"v{number}", *(i for at, i in enumerate(ids) if at != number % 6))


def items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["slates"]["for_you"]["items"]
    return found


def model_of(served: InProcess, answer: dict[str, Any]) -> str:
    document = served.get(f"/v1/decisions/{answer['decision_id']}").json()
    version: str = document["slates"]["for_you"]["versions"]["model"]
    return version


def trained(database: str, folder: Path) -> str:
    """The digest of a model that another process trained."""
    workspace = load_workspace(folder)
    with Store(database) as store:
        return train_recommender(
            store,
            ModelStore(database),
            workspace,
            workspace.recommenders["embedded"],
            now_us=system_clock(),
        ).digest


def test_what_is_logged_changes_what_is_recommended(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
        watch(served, "fan", "t0", "t1", days_ago=1)
        before = served.decide("fan")
        assert model_of(served, before) == ""
        assert {item["reason"] for item in items(before)} == {"newest"}
        digest = trained(database, cinema)
        served.run(served.engine.follow_models)
        after = served.decide("fan")
        assert model_of(served, after) == digest
        # Of the fan's genre, and nothing that was finished this week.
        assert {item["item_id"] for item in items(after)} <= {"t2", "t3", "t4", "t5"}
        assert {item["because"] for item in items(after)} <= {"t0", "t1"}
        replayed = served.post(f"/v1/decisions/{before['decision_id']}/replay").json()
        assert replayed["identical"]
        assert any(event == "recommends" for event, _ in served.journal.entries)


def test_a_restarted_server_has_the_model_from_the_start(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
    digest = trained(database, cinema)
    with InProcess(cinema, database) as served:
        assert model_of(served, served.decide("v1")) == digest


def test_somebody_without_history_gets_what_is_popular(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
        for user in range(30):
            watch(served, f"late-{user}", "c5", days_ago=1)
        trained(database, cinema)
        served.run(served.engine.follow_models)
        first = items(served.decide("nobody"))[0]
        assert (first["item_id"], first["reason"]) == ("c5", "popularity")


def test_between_trainings_what_units_do_and_new_items_count(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
        digest = trained(database, cinema)
        served.run(served.engine.follow_models)
        new = {"item_id": "t-new", "attributes": {"genre": "thriller"}}
        assert served.post("/v1/items", new).status_code == 200
        for user in range(40):
            watch(served, f"late-{user}", "t-new", "t0", days_ago=0)
        served.run(lambda: served.engine.follow_models(kept_up=True))
        answer = served.decide("nobody")
        assert items(answer)[0]["item_id"] in {"t-new", "t0"}
        version = model_of(served, answer)
        assert version.startswith(f"{digest}+")
    # Whoever keeps the same model up to the same place has the same one.
    with InProcess(cinema, database) as again:
        same = again.decide("nobody")
        assert model_of(again, same) == version
        assert [i["item_id"] for i in items(same)] == [i["item_id"] for i in items(answer)]
        # Each call is as of its own moment, a moment later here.
    scores = [item["score"] for item in items(answer)]
    assert [item["score"] for item in items(same)] == pytest.approx(scores, rel=1e-5)


def test_a_damaged_model_is_told_and_what_served_serves_on(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
        digest = trained(database, cinema)
        served.run(served.engine.follow_models)
        watch(served, "one-more", "c1", days_ago=1)
        assert trained(database, cinema) != digest
        with closing(sqlite3.connect(f"{tmp_path}/log.db.models")) as models, models:
            models.execute(
                "UPDATE recommender_models SET data = zeroblob(length(data)) "
                "WHERE seq = (SELECT max(seq) FROM recommender_models)"
            )
        served.run(served.engine.follow_models)
        assert model_of(served, served.decide("v1")) == digest
        warned = [
            fields["message"] for event, fields in served.journal.entries if fields.get("message")
        ]
        assert any("was altered" in message for message in warned)


def test_a_model_of_another_catalogue_is_told_and_the_newest_items_stand_in(
    cinema: Path, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
        digest = trained(database, cinema)
        served.run(served.engine.follow_models)
        gone = [{"item_id": id_, "removed": True} for ids in TASTES.values() for id_ in ids]
        assert served.post("/v1/items", gone).status_code == 200
        served.post("/v1/items", {"item_id": "other", "attributes": {"genre": "drama"}})
        slate = served.decide("v1")["slates"]["for_you"]
        assert [item["item_id"] for item in slate["items"]] == ["other"]
        assert slate["fallback"] == (
            f"embedded: model {digest[:12]} knows none of the catalogue's 1 items; train it on them"
        )
        served.decide("v2")
        # When its items are back, so is the model.
        tell_titles(served)
        assert served.decide("v1")["slates"]["for_you"]["fallback"] is None
        told = [event for event, _ in served.journal.entries if event.startswith("fell back")]
        assert told == ["fell back", "fell back no more"]


def test_only_the_last_models_are_kept(tmp_path: Path) -> None:
    models = ModelStore(f"sqlite:///{tmp_path}/log.db")
    assert models.newest() == {}
    for number in range(MOST_KEPT + 3):
        models.add(
            "embedded", f"{number}", b"x", position=number, interactions=0, created_at=number
        )
        models.add("other", "same", b"y", position=0, interactions=0, created_at=0)
    newest = models.newest()
    assert newest["embedded"].digest == f"{MOST_KEPT + 2}"
    assert newest["other"].digest == "same"
    with closing(sqlite3.connect(f"{tmp_path}/log.db.models")) as connection:
        counts = connection.execute("SELECT count(*) FROM recommender_models GROUP BY recommender")
        assert counts.fetchall() == [(MOST_KEPT,), (MOST_KEPT,)]


def test_an_undone_interaction_trains_nothing(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        watch(served, "u", "t0", "t1")
        undo = {"outcome_id": "undo", "user_id": "u", "metric": "watch", "value": 0}
        assert served.post("/v1/outcomes", undo | {"corrects": "u-t0"}).status_code == 200
        _, found = logged(served.engine._store)
        assert as_table(found).item_ids == ("t1",)


def scored(text: str) -> str:
    """The cinema with a slate that ranks by hours watched, which length tells."""
    text = text.replace("    k: 3\n", "    k: 3\n    objective: hours\n    features: [length]\n")
    text = text.replace("metrics: {watch", "metrics: {hours: {window: 50ms}, watch")
    text = text.replace("attributes: {genre", "attributes: {length: number, genre")
    return text.replace("    keep_out", "    exploration: {epsilon: 1.0}\n    keep_out")


def test_a_slate_learns_its_objective_from_what_came_of_each_position(
    cinema: Path, tmp_path: Path
) -> None:
    """Hours are what a title's length is, whatever was popular: the ranking turns to length."""
    (cinema / "cinema.yaml").write_text(scored(CINEMA), encoding="utf-8")
    database = f"sqlite:///{tmp_path}/log.db"
    ids = [id_ for several in TASTES.values() for id_ in several]
    lengths = {id_: float(number) for number, id_ in enumerate(ids)}
    with InProcess(cinema, database) as served:
        served.post(
            "/v1/items",
            [{"item_id": i, "attributes": {"length": n}} for i, n in lengths.items()],
        )
        for number in range(60):
            answer = served.decide(f"viewer-{number}")
            outcomes = [
                {
                    "outcome_id": f"{number}-{item['position']}",
                    "decision_id": answer["decision_id"],
                    "metric": "hours",
                    "value": lengths[item["item_id"]],
                    "item_id": item["item_id"],
                }
                for item in items(answer)
            ]
            assert served.post("/v1/outcomes", outcomes).status_code == 200
        watch_by_taste(served)
        workspace = served.engine.workspace
        before = workspace.slates["for_you"].scorer
        assert before is not None
        assert before.coefficients.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]

        def learned() -> Scored | None:
            """What was learned once every window is over; before, of fewer positions."""
            with Store(database) as store:
                found = train_scorer(
                    store,
                    ModelStore(database),
                    workspace.slates["for_you"],
                    Revisions(store),
                    now_us=system_clock(),
                )
            return found if found and found.positions >= 180 else None

        found = until(learned, "the windows to end")
        assert found is not None
        assert found.objective == "hours"
        assert found.positions == 180
        served.run(served.engine.follow_models)
        # Epsilon is 1 here: the scores tell what is learned, not the order.
        answer = served.decide("somebody")
        by_score = sorted(items(answer), key=lambda item: item["score"])
        assert by_score == sorted(items(answer), key=lambda item: lengths[item["item_id"]])
        document = served.get(f"/v1/decisions/{answer['decision_id']}").json()["slates"]["for_you"]
        assert document["versions"]["scorer"] == found.digest
        assert document["objective"] == "hours"
        assert served.post(f"/v1/decisions/{answer['decision_id']}/replay").json()["identical"]


def test_what_was_not_exposed_teaches_nothing_where_exposures_are_logged(
    cinema: Path, tmp_path: Path
) -> None:
    (cinema / "cinema.yaml").write_text(scored(CINEMA), encoding="utf-8")
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        titles = [{"item_id": f"t{n}", "attributes": {"length": n}} for n in range(5)]
        served.post("/v1/items", titles)
        seen = served.decide("seen")
        served.decide("unseen")
        served.post("/v1/exposures", {"decision_id": seen["decision_id"]})
        slate = served.engine.workspace.slates["for_you"]

        def learned() -> Scored | None:
            store = served.engine._store
            later = system_clock() + HOUR
            return train_scorer(store, ModelStore(database), slate, Revisions(store), now_us=later)

        found = learned()
        assert found is not None
        assert found.positions == 3


# The command line --------------------------------------------------------------------------------


def test_a_catalogue_and_its_interactions_come_from_files(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    (tmp_path / "titles.csv").write_text(
        "id,genre\n" + "".join(f"{i},{g}\n" for g, ids in TASTES.items() for i in ids) + ",none\n",
        encoding="utf-8",
    )
    recent = rfc3339(system_clock() - 20 * HOUR)
    rows = [f"v{n},{i},{recent},finish" for n in range(8) for i in TASTES["comedy"][n % 3 :]]
    (tmp_path / "watched.csv").write_text(
        "viewer,item_id,at,did\n" + "\n".join(rows) + "\nv1,c1,yesterday,finish\n", encoding="utf-8"
    )
    of = ("--database", database)
    items_ = evenhand("load-items", "titles.csv", *of, "--workspace", str(cinema), cwd=tmp_path)
    assert items_.returncode == 1, items_.stderr
    assert "12 items stored, 0 unchanged" in items_.stdout
    assert "left out: line 14: id is empty" in items_.stderr
    columns = ("--user", "viewer", "--kind", "did")
    for stored, known in ((len(rows), 0), (0, len(rows))):
        told = evenhand("load-interactions", "watched.csv", *columns, *of, "--json", cwd=tmp_path)
        assert told.returncode == 1, told.stderr
        said = json.loads(told.stdout)
        assert (said["stored"], said["known"]) == (stored, known)
        assert "yesterday" in said["faults"][0]
    train = evenhand("train-recs", *of, "--workspace", str(cinema), "--json", cwd=tmp_path)
    assert train.returncode == 0, train.stderr
    made = json.loads(train.stdout)
    assert made["interactions"] == len(rows)
    assert made["catalogue"] == 12
    with InProcess(cinema, database) as served:
        answer = served.decide("v7")
        assert model_of(served, answer) == made["digest"]
        # The history of a file is a history.
        assert "c2" not in {item["item_id"] for item in items(answer)}


def test_recommenders_are_judged_beside_what_is_popular(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
        watch_by_taste(served)
    told = evenhand("eval-recs", "--database", database, "--k", "3", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    results = json.loads(told.stdout)["results"]
    recall = {
        result["name"]: figure["value"]
        for result in results
        for figure in result["figures"]
        if figure["metric"] == "recall"
    }
    assert recall.keys() == {"popularity", "embedded"}
    assert recall["embedded"] > recall["popularity"]


def test_what_cannot_be_trained_says_why(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    with InProcess(cinema, database) as served:
        tell_titles(served)
    none = evenhand("train-recs", "--database", database, cwd=tmp_path)
    assert none.returncode == 2
    assert "none of 0 interactions counts" in none.stderr
    unknown = evenhand("train-recs", "--database", database, "--recommender", "x", cwd=tmp_path)
    assert unknown.returncode == 2
    assert 'known: "embedded"' in unknown.stderr


def test_acknowledged_items_and_interactions_survive_a_kill(cinema: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/log.db"
    told, done = [], []
    body: dict[str, Any] = {}
    with Server(cinema, database, tmp_path / "server.log") as server:
        with httpx.Client(base_url=server.url) as http:
            for number in range(30):
                item = {"item_id": f"i{number}", "attributes": {"genre": "thriller"}}
                assert http.post("/v1/items", json=item).status_code == 200
                told.append(item["item_id"])
                outcome = {"outcome_id": f"o{number}", "user_id": "u", "metric": "watch"}
                body = outcome | {"value": 1.0, "item_id": f"i{number}"}
                assert http.post("/v1/outcomes", json=body).status_code == 200
                done.append(f"i{number}")
        server.kill()
        server.start()
        with httpx.Client(base_url=server.url) as http:
            assert all(http.get(f"/v1/items/{id_}").status_code == 200 for id_ in told)
            # Sent again, as a client does that was not answered, it is known.
            assert http.post("/v1/outcomes", json=body).json()["duplicates"] == 1
    with Store(database) as store:
        assert [one.item_id for one in logged(store)[1]] == done
