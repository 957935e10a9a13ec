"""Models: trained, saved, bound to a catalogue, and asked for candidates of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bound import BoundModel, bind
from recsys.call import SLATE_KINDS, SlateKind
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.errors import RecsysError
from recsys.interactions import Interactions
from recsys.model import Model, load_model, open_model
from recsys.settings import TrainSettings
from recsys.training import train, updated
from tests.recsys.worlds import DAY, NOW, call, catalogue, history, interactions

CATALOGUE = catalogue()
INTERACTIONS = interactions()
MODELS: dict[str, Model] = {
    kind: train(CATALOGUE, INTERACTIONS, TrainSettings(kind=kind, factors=8))
    for kind in ("ease", "als", "item_knn", "popularity")
}
EASE = MODELS["ease"]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))


def ask(
    bound: BoundModel, kind: SlateKind = "for_you", count: int = 5, allowed: Any = None,
    **of_call: Any,
) -> Candidates:  # fmt: skip
    return bound.candidates(call(**of_call), bound.catalogue, kind, allowed, count)


def ids(bound: BoundModel, rows: Sequence[int] | np.ndarray) -> list[str]:
    return [bound.catalogue.ids[row] for row in rows]


def genres(bound: BoundModel, found: Candidates) -> list[str]:
    return [item_id.rstrip("0123456789") for item_id in ids(bound, found.rows)]


@pytest.mark.parametrize("kind", ["ease", "als", "item_knn"])
def test_a_history_of_one_genre_brings_that_genre_and_says_why(kind: str) -> None:
    bound = bind(MODELS[kind], CATALOGUE)
    seen = ("space00", "space03", "space04")
    allowed = np.ones(CATALOGUE.size, np.bool_)
    allowed[CATALOGUE.rows(seen)] = False
    found = ask(bound, history=history(*seen), allowed=allowed)
    assert genres(bound, found) == ["space"] * 5
    assert set(ids(bound, found.because)) <= set(seen)
    assert {found.sources[code] for code in found.source} == {kind}


@EVERY_MODEL
def test_a_user_without_history_gets_what_is_popular(model: Model) -> None:
    bound = bind(model, CATALOGUE)
    found = ask(bound)
    assert {found.sources[code] for code in found.source} == {"popularity"}
    expected = model.popularity.scores(NOW)
    assert ids(bound, found.rows) == [model.index.ids[i] for i in np.argsort(-expected)[:5]]
    assert ids(bound, ask(bound, history=history("gone", "lost")).rows) == ids(bound, found.rows)


@EVERY_MODEL
def test_without_consent_a_history_chooses_nothing(model: Model) -> None:
    bound = bind(model, CATALOGUE)
    denied = ask(bound, history=history("space00"), consents={"personalisation": False})
    assert denied.rows.tolist() == ask(bound).rows.tolist()
    for kind in ("because_you", "replenishment"):
        quiet = ask(bound, kind, history=history("space00"), consents={"personalisation": False})
        assert len(quiet.rows) == 0


@given(
    st.sampled_from(list(MODELS)),
    st.sampled_from(["for_you", "editorial"]),
    st.lists(st.sampled_from(CATALOGUE.ids), max_size=4),
    st.integers(0, 2**36 - 1),
    st.integers(1, 50),
)
def test_as_many_are_brought_as_are_asked_for_and_allowed(
    model: str, kind: SlateKind, seen: list[str], bits: int, count: int
) -> None:
    allowed = np.array([bool(bits >> i & 1) for i in range(CATALOGUE.size)])
    found = ask(bind(MODELS[model], CATALOGUE), kind, count, allowed, history=history(*seen))
    assert len(found.rows) == min(count, allowed.sum())
    assert allowed[found.rows].all()
    assert (np.diff(found.scores) <= 0).all()


def with_new_item() -> Catalogue:
    new = Item("newcomer", {"category": "space", "tags": ["space", "any"]}, (0.0, 0.0, 1.0))
    odd = Item("oddity", {"category": "garden"})
    return CATALOGUE.upsert([new, odd], now=NOW)


@pytest.mark.parametrize("kind", ["ease", "als"])
def test_a_new_item_appears_by_its_content(kind: str) -> None:
    bound = bind(MODELS[kind], with_new_item())
    found = ask(bound, count=20, history=history("space01", "space02"))
    names = ids(bound, found.rows)
    assert "newcomer" in names[:14]
    place = names.index("newcomer")
    assert found.sources[found.source[place]] == "content"
    assert found.because[place] >= 0
    other = ids(bound, ask(bound, count=20, history=history("crime01", "crime02")).rows)
    assert "newcomer" not in other[:14]


def test_a_history_of_new_items_alone_says_something_too() -> None:
    bound = bind(EASE, with_new_item())
    found = ask(bound, history=history("newcomer"))
    assert set(genres(bound, found)) <= {"space", "newcomer"}
    assert set(ids(bound, found.because)) == {"newcomer"}


def test_because_you_relates_to_the_last_seen_or_to_the_seeds() -> None:
    bound = bind(EASE, CATALOGUE)
    last = ask(bound, "because_you", history=history("crime00", "space02"))
    assert set(ids(bound, last.because)) == {"space02"}
    assert genres(bound, last) == ["space"] * 5
    assert "space02" not in ids(bound, last.rows)
    seeded = ask(bound, "because_you", history=history("space02"), seeds=("drama01",))
    assert set(ids(bound, seeded.because)) == {"drama01"}
    assert len(ask(bound, "because_you").rows) == 0


def test_similar_items_are_alike_by_content_and_by_users() -> None:
    bound = bind(EASE, CATALOGUE)
    found = ask(bound, "similar", seeds=("drama01",))
    assert genres(bound, found) == ["drama"] * 5
    assert set(ids(bound, found.because)) == {"drama01"}


def test_alternatives_are_of_the_category_and_near_the_price() -> None:
    bound = bind(EASE, CATALOGUE)
    found = ask(bound, "alternatives", 11, seeds=("drama05",))
    assert sorted(ids(bound, found.rows)) == [f"drama{n:02d}" for n in range(12) if n != 5]
    near = {f"drama{n:02d}" for n in (3, 4, 6, 7)}
    assert len(near & set(ids(bound, found.rows[:5]))) >= 2


def test_bundles_are_what_the_same_users_chose() -> None:
    bound = bind(EASE, CATALOGUE)
    found = ask(bound, "bundles", seeds=("crime00",))
    [row] = EASE.index.rows(["crime00"])
    nearest = [EASE.index.ids[i] for i in EASE.nearest.items[row][:5]]
    assert ids(bound, found.rows) == nearest


def test_accessories_that_fit_come_first_and_others_stay_for_the_rules() -> None:
    fitting = [
        Item("bag", {"compatible_with": ["crime00"]}),
        Item("lens", {"compatible_with": ["crime"]}),
        Item("strap", {"compatible_with": ["drama"]}),
        Item("book", {"compatible_with": []}),
    ]
    bound = bind(EASE, CATALOGUE.upsert(fitting, now=NOW))
    names = ids(bound, ask(bound, "accessories", 40, seeds=("crime00",)).rows)
    assert set(names[:2]) == {"bag", "lens"}
    assert "strap" in names[2:]
    assert "book" not in names
    plain = Catalogue.empty(ItemSchema({})).upsert([Item(i) for i in CATALOGUE.ids], now=NOW)
    with pytest.raises(RecsysError, match="role compatible_with"):
        ask(bind(EASE, plain), "accessories", seeds=("crime00",))


def test_what_is_due_again_comes_back_the_most_overdue_first() -> None:
    days = {"crime00": 30.0, "crime01": 30.0, "crime02": 30.0, "crime03": 0.0}
    told = [Item(item_id, {"replenish_days": value}) for item_id, value in days.items()]
    bound = bind(EASE, CATALOGUE.upsert(told, now=NOW))
    ages = {"crime01": 60, "crime00": 25, "crime03": 9, "drama00": 9, "crime02": 3}
    bought = tuple(
        history(item_id, kind="purchase", at=NOW - age * DAY)[0] for item_id, age in ages.items()
    )
    found = ask(bound, "replenishment", history=bought)
    assert ids(bound, found.rows) == ["crime01", "crime00"]
    np.testing.assert_allclose(found.scores, [2.0, 25 / 30])


def test_intervals_are_learned_from_users_who_came_back() -> None:
    users = [f"u{n}" for n in range(5) for _ in range(3)]
    at = [NOW - (20 - step * (n + 1)) * DAY for n in range(5) for step in range(3)]
    again = Interactions.of([*users, "v"], ["crime00"] * 15 + ["crime01"], [*at, NOW])
    model = train(CATALOGUE, again)
    assert model.repeat_days[0] == pytest.approx(3.0)
    assert np.isnan(model.repeat_days[1])


@pytest.mark.parametrize("kind", [k for k in SLATE_KINDS if k not in {"for_you", "editorial"}])
def test_seeds_that_the_catalogue_does_not_have_are_refused(kind: SlateKind) -> None:
    bound = bind(EASE, CATALOGUE)
    if kind == "replenishment":
        assert len(ask(bound, kind, seeds=("nothing",)).rows) == 0
    else:
        with pytest.raises(RecsysError, match=r"call.seeds is \['nothing'\]"):
            ask(bound, kind, seeds=("nothing",))


def test_popularity_goes_by_segment_where_it_is_known() -> None:
    items = ["crime00"] * 80 + ["drama00"] * 100
    groups = ["GB"] * 80 + ["FR"] * 100
    users = [f"u{n}" for n in range(180)]
    table = Interactions.of(users, items, [NOW - DAY] * 180, segments=groups)
    bound = bind(train(CATALOGUE, table, TrainSettings(segment="country")), CATALOGUE)
    assert ids(bound, ask(bound, count=1).rows) == ["drama00"]
    assert ids(bound, ask(bound, count=1, context={"country": "GB"}).rows) == ["crime00"]
    assert ids(bound, ask(bound, count=1, context={"country": 7}).rows) == ["drama00"]


def test_what_is_popular_lately_is_listed_first() -> None:
    users = [f"u{n}" for n in range(60)]
    old, new = ["crime00"] * 40, ["drama00"] * 20
    at = [NOW - 200 * DAY] * 40 + [NOW - DAY] * 20
    bound = bind(train(CATALOGUE, Interactions.of(users, [*old, *new], at)), CATALOGUE)
    assert ids(bound, ask(bound, count=2).rows) == ["drama00", "crime00"]
    long_before = ask(bound, count=2, now=NOW - 200 * DAY)
    assert ids(bound, long_before.rows) == ["crime00", "drama00"]


# Saving -------------------------------------------------------------------------------------------


@EVERY_MODEL
def test_a_model_read_back_is_the_model(model: Model, tmp_path: Path) -> None:
    data = model.dumps()
    assert load_model(data).dumps() == data
    (tmp_path / "model").write_bytes(data)
    mapped = open_model(tmp_path / "model")
    assert mapped.digest == model.digest
    seen = history("space01", "drama02")
    first = ask(bind(model, CATALOGUE), count=36, history=seen)
    second = ask(bind(mapped, CATALOGUE), count=36, history=seen)
    assert first.rows.tolist() == second.rows.tolist()
    np.testing.assert_array_equal(first.scores, second.scores)


def test_the_same_log_makes_the_same_model() -> None:
    again = train(CATALOGUE, interactions(), TrainSettings(kind="als", factors=8))
    assert again.digest == MODELS["als"].digest


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_is_told(position: int, bit: int) -> None:
    data = bytearray(EASE.dumps())
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(RecsysError, match="checksum"):
        load_model(bytes(data))


@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_model_is_told(share: float) -> None:
    data = EASE.dumps()
    with pytest.raises(RecsysError, match="checksum"):
        load_model(data[: int(share * len(data))])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name in ("empty", "missing"):
        with pytest.raises(RecsysError, match="cannot be read"):
            open_model(tmp_path / name)


# Other catalogues ---------------------------------------------------------------------------------


def test_a_catalogue_that_lost_and_gained_items_is_served_what_it_has() -> None:
    other = with_new_item().remove(["space00", "crime05"])
    bound = bind(EASE, other)
    seen = history("space00", "space01")
    found = ask(bound, count=36, history=seen)
    assert sorted(ids(bound, found.rows)) == sorted(other.ids)
    assert genres(bound, found)[:6].count("space") >= 5


def test_a_catalogue_of_other_items_is_refused() -> None:
    schema = ItemSchema({})
    with pytest.raises(RecsysError, match=r"none of which is among this one's 1\. Train"):
        bind(EASE, Catalogue.empty(schema).upsert([Item("other")], now=1))
    with pytest.raises(RecsysError, match="none of which is among this one's 0"):
        bind(EASE, Catalogue.empty(schema))
    with pytest.raises(RecsysError, match="Bind it anew"):
        bind(EASE, CATALOGUE).candidates(call(), with_new_item(), "for_you", None, 5)


def test_news_of_stock_need_no_binding_anew() -> None:
    bound = bind(EASE, CATALOGUE)
    cheaper = CATALOGUE.upsert([Item("crime00", {"price": 1.0})], now=NOW)
    assert bound.candidates(call(), cheaper, "for_you", None, 5).rows.tolist() == (
        ask(bound).rows.tolist()
    )
    again = bind(EASE, cheaper, bound)
    assert again.fresh is bound.fresh
    grown = bind(EASE, with_new_item(), again)
    assert len(grown.fresh.rows) == 2


# Training -----------------------------------------------------------------------------------------


def test_auto_takes_factors_beyond_so_many_items() -> None:
    settings = TrainSettings(factors=4, iterations=2)
    assert train(CATALOGUE, INTERACTIONS, settings).kind == "ease"
    fewer = TrainSettings(factors=4, iterations=2, ease_items=30)
    assert train(CATALOGUE, INTERACTIONS, fewer).kind == "als"


def test_a_robot_that_chooses_everything_makes_no_items_near() -> None:
    """Of a user only the last 500 choices do; users' pairs grow with the square of their number."""
    names = [f"i{number:04d}" for number in range(600)]
    plain = Catalogue.empty(ItemSchema({})).upsert([Item(name) for name in names], now=NOW)
    log = Interactions.of(["robot"] * 600, names, [NOW + n for n in range(600)])
    nearest = train(plain, log, TrainSettings(kind="item_knn")).nearest
    assert not nearest.similarities[:100].any()
    assert nearest.similarities[100:].all()


def test_training_tells_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []
    settings = TrainSettings(kind="als", factors=4, iterations=2)
    train(CATALOGUE, INTERACTIONS, settings, lambda stage, share: told.append((stage, share)))
    assert told == [
        ("nearest items", 0.0), ("nearest items", 1.0), ("als", 0.0), ("als", 0.5), ("als", 1.0),
    ]  # fmt: skip


def test_returns_and_low_ratings_speak_for_nothing() -> None:
    table = Interactions.of(
        ["u", "u", "u", "u"], ["crime00", "crime01", "drama00", "drama01"], [1, 2, 3, 4],
        kinds=["purchase", "return", "rate", "rate"], values=[5, 5, 5, 2],
    )  # fmt: skip
    model = train(CATALOGUE, table, TrainSettings(least_value=4.0, kind="popularity"))
    assert model.index.ids == ("crime00", "drama00")
    seen = (*history("crime00"), *history("crime01", kind="return"), *history("drama00"))
    known, weights = model.history(seen, NOW)
    assert known == ()
    assert len(weights) == 0


def test_later_choices_weigh_more_and_simultaneous_ones_alike() -> None:
    seen = (
        *history("crime00", at=NOW - 9 * DAY),
        *history("crime01", "crime02", at=NOW - 5 * DAY),
        *history("crime01", at=NOW - 4 * DAY),
        *history("drama00", at=NOW + DAY),
        *history("drama01", at=NOW + 2 * DAY),
    )
    known, weights = EASE.history(seen, NOW)
    assert known == ("drama01", "drama00", "crime01", "crime02", "crime00")
    later = np.array([0, 0, 2, 3, 4])
    np.testing.assert_allclose(weights, (1.0 + later) ** -0.25, rtol=1e-6)
    assert EASE.history((), NOW)[0] == ()


def test_nothing_to_train_on_is_refused() -> None:
    returns = Interactions.of(["u"], ["crime00"], [1], kinds="return")
    with pytest.raises(RecsysError, match="none of 1 interactions counts: their kinds are return"):
        train(CATALOGUE, returns)
    with pytest.raises(RecsysError, match="none of 0 interactions"):
        train(CATALOGUE, Interactions.of([], [], []))
    with pytest.raises(RecsysError, match="catalogue's 36 items; they are with 'x' and 0 others"):
        train(CATALOGUE, Interactions.of(["u"], ["x"], [1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "magic"}, "train.kind is 'magic'. Known: auto"),
        ({"weights": {"view": -1.0}}, "train.weights.view is -1.0"),
        ({"half_life_days": 0.0}, "half_life_days is 0.0. Give a number above 0"),
        ({"recency": float("nan")}, "recency is nan"),
        ({"factors": 0}, "factors is 0. Give 1 or more"),
        ({"ease_lambda": -1.0}, "ease_lambda is -1.0"),
        ({"least_value": float("inf")}, "least_value is inf"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecsysError, match=message):
        TrainSettings(**settings)


# Updates ------------------------------------------------------------------------------------------


def test_popularity_after_an_update_is_that_of_all_interactions() -> None:
    early = INTERACTIONS.take(INTERACTIONS.at < NOW - 20 * DAY)
    late = INTERACTIONS.take(INTERACTIONS.at >= NOW - 20 * DAY)
    settings = TrainSettings(kind="popularity")
    model = updated(train(CATALOGUE, early, settings), late, CATALOGUE)
    whole = train(CATALOGUE, INTERACTIONS, settings)
    all_ids = model.index.ids + model.adopted.index.ids
    assert set(all_ids) == set(whole.index.ids)
    order = [all_ids.index(item_id) for item_id in whole.index.ids]
    pairs = len(early) + len(late) - len(INTERACTIONS.last_of_pairs())
    assert pairs == 0
    np.testing.assert_allclose(model.popularity.counts[order], whole.popularity.counts)
    np.testing.assert_allclose(model.popularity.recent[order], whole.popularity.recent)
    assert model.parent is not None
    assert load_model(model.dumps()).dumps() == model.dumps()


def test_an_item_that_users_chose_after_the_training_is_adopted() -> None:
    """By what they chose beside it, though its content says nothing."""
    plain = CATALOGUE.upsert([Item("mystery")], now=NOW)
    before = bind(EASE, plain)
    fans = [f"n{n}" for n in range(12) for _ in range(3)]
    items = ["mystery", "space00", "space03"] * 12
    model = updated(EASE, Interactions.of(fans, items, [NOW] * 36), plain)
    after = bind(model, plain)
    seen = history("space01", "space02")
    assert "mystery" not in ids(before, ask(before, count=12, history=seen).rows)
    assert "mystery" in ids(after, ask(after, count=12, history=seen).rows)
    assert "mystery" not in ids(after, ask(after, count=12, history=history("crime01")).rows)
    assert "mystery" in ids(after, ask(after, count=12).rows)
    assert "mystery" not in ids(before, ask(before, count=12).rows)
    twice = updated(model, Interactions.of(["z"], ["mystery"], [NOW + DAY]), plain)
    assert twice.adopted.index.ids == ("mystery",)
    assert twice.parent == model.digest
