"""A call and its candidates are valid, or are not there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from recsys.call import Call, Interaction
from recsys.candidates import Candidates
from recsys.errors import RecsysError

CALL: dict[str, Any] = {
    "user_id": "u1", "surface": "home", "slate": "carousel", "k": 3, "now": 100, "trace_id": "t1",
}  # fmt: skip


def test_a_call_needs_no_more_than_who_where_and_how_many() -> None:
    call = Call(**CALL)
    assert (call.history, call.uniforms, call.personal) == ((), (), True)
    assert not Call(**CALL, consents={"personalisation": False}).personal


def test_a_call_reads_back_from_json() -> None:
    call = Call(**CALL, history=(Interaction("a", "view", 1), Interaction("b", "view", 1)))
    assert msgspec.json.decode(msgspec.json.encode(call), type=Call) == call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ""}, "user_id is empty"),
        ({"trace_id": ""}, "trace_id is empty"),
        ({"k": 0}, "k is 0. Ask for 1 to 1000"),
        ({"k": 1001}, "k is 1001"),
        ({"k": True}, "k is True"),
        ({"uniforms": (0.5,)}, "has 1 numbers for k = 3"),
        ({"uniforms": (0.5, 0.5, 1.0)}, r"holds 1.0. Give numbers in \[0, 1\)"),
        (
            {"history": (Interaction("a", "view", 2), Interaction("b", "view", 1))},
            "Give the oldest first",
        ),
    ],
    ids=str,
)
def test_a_call_that_cannot_be_answered_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecsysError, match=message):
        Call(**{**CALL, **change})


def test_an_interaction_names_item_and_kind_and_is_finite() -> None:
    with pytest.raises(RecsysError, match="Name both"):
        Interaction("", "view", 1)
    with pytest.raises(RecsysError, match="Name both"):
        Interaction("a", "", 1)
    with pytest.raises(RecsysError, match="finite"):
        Interaction("a", "view", 1, float("nan"))


def candidates(rows: list[int], scores: list[float], source: list[int]) -> Candidates:
    return Candidates(
        np.array(rows, np.intp),
        np.array(scores),
        np.array(source, np.int8),
        np.full(len(rows), -1, np.intp),
        ("popularity", "content"),
    )


def test_candidates_are_distinct_finite_and_from_a_named_source() -> None:
    assert len(candidates([], [], []).rows) == 0
    assert candidates([3, 1], [2.0, 1.0], [0, 1]).sources[1] == "content"
    for wrong, message in [
        (([3, 3], [2.0, 1.0], [0, 0]), "twice"),
        (([-1, 3], [2.0, 1.0], [0, 0]), "not there"),
        (([1, 3], [2.0, np.inf], [0, 0]), "finite"),
        (([1, 3], [2.0, 1.0], [0, 2]), "beyond the 2"),
        (([1, 3], [2.0], [0, 0]), "shapes"),
    ]:
        with pytest.raises(RecsysError, match=message):
            candidates(*wrong)
