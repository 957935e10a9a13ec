"""The OpenAPI document says all that the server answers, in the shape in which it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.running import InProcess, broken

METHODS = {"get", "post", "put", "delete"}
CONTRACT = {
    ("post", "/v1/decide"),
    ("post", "/v1/recommend"),
    ("post", "/v1/exposures"),
    ("post", "/v1/outcomes"),
    ("post", "/v1/items"),
    ("put", "/v1/items"),
    ("get", "/v1/items/{item_id}"),
    ("delete", "/v1/items/{item_id}"),
    ("get", "/v1/decisions/{decision_id}"),
    ("post", "/v1/decisions/{decision_id}/replay"),
    ("get", "/v1/lift"),
    ("get", "/v1/ope"),
    ("post", "/v1/forget"),
    ("get", "/v1/snapshots"),
    ("post", "/v1/promote"),
    ("post", "/v1/rollback"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}
KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


@pytest.fixture(scope="module")
def document(served: InProcess) -> dict[str, Any]:
    response = served.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def resolved(document: dict[str, Any], reference: str) -> dict[str, Any]:
    root, *parts = reference.split("/")
    assert root == "#"
    found: Any = document
    for part in parts:
        found = found[part]
    assert isinstance(found, dict)
    return found


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any, at: str) -> list[str]:
    """What a value has that its schema does not say, or lacks; no keys beside those declared."""
    if "$ref" in schema:
        return faults(document, resolved(document, schema["$ref"]), value, at)
    for branches in (schema[key] for key in ("anyOf", "oneOf") if key in schema):
        found = [faults(document, branch, value, at) for branch in branches]
        return [] if [] in found else found[0]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at} is {value!r}"]
    kind = schema.get("type")
    if kind is None:
        return []
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{at} is {value!r}, not {kind}"]
    if isinstance(value, list):
        items = schema.get("items", {})
        return [
            fault
            for index, entry in enumerate(value)
            for fault in faults(document, items, entry, f"{at}[{index}]")
        ]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        required = schema.get("required", ())
        said = [f"{at}.{name} is missing" for name in required if name not in value]
        said += [f"{at}.{name} is not declared" for name in value if name not in known]
        for name, inner in value.items():
            said += faults(document, known.get(name, {}), inner, f"{at}.{name}")
        return said
    return []


def test_every_route_of_the_contract_is_there_and_no_other(
    document: dict[str, Any],
) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == CONTRACT


def test_it_is_an_openapi_document_whose_references_resolve(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"].keys() >= {"title", "version"}
    for node in nodes(document):
        if isinstance(node.get("$ref"), str):
            resolved(document, node["$ref"])
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, operation in operations(document):
        assert method in METHODS
        assert operation["summary"]
        assert operation["responses"]
        for response in operation["responses"].values():
            assert response["description"]
        named = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def test_no_schema_is_left_over(document: dict[str, Any]) -> None:
    used = {n["$ref"].rsplit("/", 1)[1] for n in nodes(document) if isinstance(n.get("$ref"), str)}
    assert used == document["components"]["schemas"].keys()


def test_every_error_is_a_problem_and_none_is_422(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        statuses = operation["responses"].keys()
        assert "422" not in statuses
        assert "200" in statuses
        for status, response in operation["responses"].items():
            if status >= "400" and path != "/readyz":
                (media,) = response["content"]
                assert media == "application/problem+json", (method, path, status)


def test_what_is_answered_is_as_documented(served: InProcess, document: dict[str, Any]) -> None:
    """Each status of each route that can be had cheaply: listed, and its body as its schema."""
    id_ = served.decide("documented", request_id="documented")["decision_id"]
    outcome = {"outcome_id": "documented", "user_id": "u", "metric": "watch", "value": 1}
    served.post("/v1/outcomes", outcome)
    decide = {"surface": "home", "user_id": "documented", "request_id": "documented"}
    large = " " * 1_000_001
    lost = outcome | {"outcome_id": "lost"}
    asked: list[tuple[str, str, Any]] = [
        ("/v1/decide", "/v1/decide", decide),
        ("/v1/decide", "/v1/decide", decide | {"mode": "peek"}),
        ("/v1/decide", "/v1/decide", {}),
        ("/v1/decide", "/v1/decide", decide | {"surface": "away"}),
        ("/v1/decide", "/v1/decide", decide | {"user_id": "other"}),
        ("/v1/decide", "/v1/decide", large),
        ("/v1/exposures", "/v1/exposures", {"decision_id": id_}),
        ("/v1/exposures", "/v1/exposures", {}),
        ("/v1/exposures", "/v1/exposures", {"decision_id": "nobody"}),
        ("/v1/exposures", "/v1/exposures", large),
        ("/v1/outcomes", "/v1/outcomes", outcome),
        ("/v1/outcomes", "/v1/outcomes", [outcome]),
        ("/v1/outcomes", "/v1/outcomes", []),
        ("/v1/outcomes", "/v1/outcomes", outcome | {"value": 2}),
        ("/v1/outcomes", "/v1/outcomes", large),
        ("/v1/decisions/{decision_id}", f"/v1/decisions/{id_}", None),
        ("/v1/decisions/{decision_id}", "/v1/decisions/nobody", None),
        ("/v1/decisions/{decision_id}", f"/v1/decisions/{'x' * 257}", None),
        ("/v1/decisions/{decision_id}/replay", f"/v1/decisions/{id_}/replay", {}),
        ("/v1/decisions/{decision_id}/replay", "/v1/decisions/nobody/replay", {}),
        ("/v1/decisions/{decision_id}/replay", f"/v1/decisions/{id_}/replay", large),
        ("/v1/lift", "/v1/lift", None),
        ("/v1/ope", "/v1/ope", None),
        ("/healthz", "/healthz", None),
        ("/readyz", "/readyz", None),
        ("/metrics", "/metrics", None),
    ]
    failing: list[tuple[str, str, Any]] = [
        ("/v1/decide", "/v1/decide", {"surface": "home", "user_id": "failing"}),
        ("/v1/decide", "/v1/decide", decide),
        ("/v1/exposures", "/v1/exposures", {"decision_id": id_}),
        ("/v1/outcomes", "/v1/outcomes", lost),
        ("/v1/decisions/{decision_id}", f"/v1/decisions/{id_}", None),
        ("/v1/decisions/{decision_id}/replay", f"/v1/decisions/{id_}/replay", {}),
        ("/readyz", "/readyz", None),
    ]
    seen = [told(served, document, *each) for each in asked]
    with broken(served.database, "decisions", "outcomes", "exposures", "activations"):
        seen += [told(served, document, *each) for each in failing]
    assert {200, 400, 404, 409, 413, 503} <= set(seen)


def told(served: InProcess, document: dict[str, Any], path: str, url: str, body: Any) -> int:
    """The status of an answer, which must be documented and have the documented shape."""
    if body is None:
        response = served.get(url)
    elif isinstance(body, str):
        response = served.request("POST", url, content=body)
    else:
        response = served.post(url, body)
    operation = document["paths"][path]["get" if body is None else "post"]
    documented = operation["responses"]
    assert str(response.status_code) in documented, (path, response.status_code, response.text)
    content = documented[str(response.status_code)].get("content", {})
    media = response.headers["content-type"].partition(";")[0]
    assert media in content, (path, response.status_code, media)
    if media.endswith("json"):
        assert faults(document, content[media].get("schema", {}), response.json(), path) == []
    return response.status_code
