"""Files of items and interactions: what is wrong is told by line, and the rest is loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.catalogue import ItemSchema
from recsys.errors import RecsysError
from recsys.interactions import Interactions
from recsys.loading import InteractionColumns, load_interactions, load_items

SCHEMA = ItemSchema(
    {
        "category": "string",
        "price": "number",
        "new": "boolean",
        "regions": "strings",
        "published": "time",
    },
    vector_size=2,
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECONDS = int(NOON.timestamp()) * 1_000_000


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_of_items_is_read_by_the_schema(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.csv",
        "id,category,price,new,regions,published,vector,updated_at\n"
        'lens,"optics, used",99.5,true,EU|UK,2026-03-01T12:00:00Z,0.5 -1,7\n'
        "card,,,,,,,\n",
    )
    catalogue, faults = load_items(path, SCHEMA, now=9)
    assert faults == []
    assert catalogue.ids == ("card", "lens")
    lens = {name: column.at(1) for name, column in catalogue.columns.items()}
    assert lens == {
        "category": "optics, used",
        "price": 99.5,
        "new": True,
        "regions": ("EU", "UK"),
        "published": MICROSECONDS,
    }
    assert [column.at(0) for column in catalogue.columns.values()] == [None] * 5
    assert catalogue.updated_at.tolist() == [9, 7]
    assert catalogue.vectors is not None
    assert catalogue.vectors.tolist() == [[0, 0], [0.5, -1]]


def test_a_parquet_of_items_makes_the_same_catalogue(tmp_path: Path) -> None:
    rows = [
        {
            "id": "lens",
            "category": "optics",
            "price": 99.5,
            "new": True,
            "regions": ["EU", "UK"],
            "published": NOON,
            "vector": [0.5, -1.0],
        },
        {"id": "card"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    text = (
        "id,category,price,new,regions,published,vector\n"
        "lens,optics,99.5,1,EU|UK,2026-03-01T13:00:00+01:00,0.5 -1.0\ncard,,,,,,\n"
    )
    from_parquet, faults = load_items(tmp_path / "items.parquet", SCHEMA, now=9)
    from_csv, others = load_items(write(tmp_path / "items.csv", text), SCHEMA, now=9)
    assert (faults, others) == ([], [])
    assert from_parquet.digest == from_csv.digest


def test_an_id_that_nothing_else_could_name_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", f"id\n{256 * 'a'}\n{257 * 'b'}\n")
    catalogue, faults = load_items(path, SCHEMA, now=9)
    assert catalogue.ids == (256 * "a",)
    assert [str(fault) for fault in faults] == ["line 3: id has 257 characters. Give at most 256."]


def test_a_line_from_the_future_is_left_out(tmp_path: Path) -> None:
    """Its stock would never be stale, and no later news of it would count."""
    day = 86_400_000_000
    path = write(tmp_path / "items.csv", f"id,updated_at\na,{day}\nb,{day + 10}\nc,{day + 9}\n")
    catalogue, faults = load_items(path, SCHEMA, now=9)
    assert catalogue.ids == ("a", "c")
    assert [str(fault) for fault in faults] == [
        "line 3: updated_at lies more than a day ahead. Check the clock."
    ]


def test_bad_rows_are_told_by_line_and_the_rest_is_loaded(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.csv",
        "id,price,new,published,vector\n"
        "a,1,true,5,1 2\n"
        "b,cheap,true,5,1 2\n"
        "c,1,perhaps,5,1 2\n"
        "d,1,true,2026-03-01T12:00:00,1 2\n"
        "a,2,true,5,1 2\n"
        ",2,true,5,1 2\n"
        "e,2,true,5,1\n"
        "f,inf,true,5,1 2\n"
        "g,2,true,5,1 2,more\n"
        "h,2,true,5,1 x\n"
        "i,2\n",
    )
    catalogue, faults = load_items(path, SCHEMA, now=9)
    assert catalogue.ids == ("a", "i")
    assert [(fault.line, fault.field) for fault in faults] == [
        (3, "price"),
        (4, "new"),
        (5, "published"),
        (6, "id"),
        (7, "id"),
        (8, "id"),
        (9, "price"),
        (10, ""),
        (11, "vector"),
    ]
    assert str(faults[0]) == "line 3: price is 'cheap'. Give a finite number."
    assert "stands in an earlier line" in faults[3].message
    assert "vector has 1 numbers" in faults[5].message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("items.txt", "", "Give a .csv or a .parquet"),
        ("items.csv", "", "has no column 'id'. It has: none"),
        ("items.csv", "name\n", "has no column 'id'. It has: name"),
        ("items.csv", "id,colour\n", "'colour', which the schema does not declare"),
        ("items.csv", "id,price,price\n", "two columns 'price'"),
        ("items.parquet", "id\n", "is no Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(RecsysError, match=message):
        load_items(write(tmp_path / name, text), SCHEMA, now=1)


def test_a_file_that_is_missing_or_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecsysError, match="is not there"):
        load_items(tmp_path / "items.csv", SCHEMA, now=1)
    (tmp_path / "items.csv").write_bytes(b"id\ncaf\xe9\n")
    with pytest.raises(RecsysError, match=r"cannot be read|no CSV in UTF-8"):
        load_items(tmp_path / "items.csv", SCHEMA, now=1)


def test_interactions_are_read_by_named_columns_in_order_of_time(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv",
        "who,what,when,stars,country,note\n"
        "u2,b,2026-03-01T12:00:00Z,4,GB,x\n"
        "u1,a,5,3.5,,y\n"
        "u1,,6,1,,y\n"
        "u1,a,soon,1,,y\n"
        "u1,a,7,nan,,y\n",
    )
    columns = InteractionColumns("who", "what", "when", value="stars", segment="country")
    interactions, faults = load_interactions(path, columns)
    assert [(fault.line, fault.field) for fault in faults] == [
        (4, "what"),
        (5, "when"),
        (6, "stars"),
    ]
    assert [interactions.item_ids[code] for code in interactions.item] == ["a", "b"]
    assert interactions.at.tolist() == [5, MICROSECONDS]
    assert interactions.value.tolist() == [3.5, 4.0]
    assert interactions.segment.tolist() == [-1, 0]
    assert (interactions.kinds, interactions.segments) == (("view",), ("GB",))
    with pytest.raises(RecsysError, match="no column 'at'"):
        load_interactions(path)


def test_taking_rows_keeps_the_ids_that_occur() -> None:
    table = Interactions.of(
        ["u2", "u1", "u1"], ["b", "a", "b"], [3, 2, 1], kinds=["buy", "view", "buy"],
        segments=["x", None, None],
    )  # fmt: skip
    assert table.at.tolist() == [1, 2, 3]
    later = table.take(table.at > 1)
    assert (later.user_ids, later.item_ids) == (("u1", "u2"), ("a", "b"))
    assert (later.kinds, later.segments) == (("buy", "view"), ("x",))
    first = table.take(np.array([0]))
    assert (first.user_ids, first.item_ids, first.segments) == (("u1",), ("b",), ())
    assert first.segment.tolist() == [-1]


def test_the_last_interaction_of_each_pair_is_kept_and_weights_go_by_kind() -> None:
    table = Interactions.of(
        ["u1"] * 4, ["a", "a", "b", "a"], [1, 2, 3, 4], kinds=["view", "buy", "view", "return"],
        values=[1, 1, 5, 1],
    )  # fmt: skip
    assert table.last_of_pairs().at.tolist() == [3, 4]
    assert table.weights({"return": 0.0, "view": 0.5}).tolist() == [0.5, 1.0, 0.5, 0.0]
    assert table.counted({"return": 0.0}, least_value=1.0).at.tolist() == [1, 2, 3]
    assert table.counted({}, least_value=2.0).at.tolist() == [3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"users": ["u", ""]}, r"users\[1\] is ''"),
        ({"items": ["a", None]}, r"items\[1\] is None"),
        ({"values": [1.0, float("nan")]}, r"values\[1\] is nan|values\[1\]"),
        ({"at": [1]}, "at has 1 rows, but users has 2"),
    ],
    ids=str,
)
def test_columns_that_are_no_interactions_are_refused(
    columns: dict[str, list[object]], message: str
) -> None:
    whole: dict[str, list[object]] = {"users": ["u", "v"], "items": ["a", "b"], "at": [1, 2]}
    with pytest.raises(RecsysError, match=message):
        Interactions.of(**{**whole, **columns})  # type: ignore[arg-type]
