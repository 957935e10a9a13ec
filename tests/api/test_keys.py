"""Keys over HTTP and on the command line: who may ask what, how often, and what is told of it."""

from __future__ import annotations

import json
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from api.access import SECURITY_HEADERS, TokenBuckets, is_open, scope_of
from api.cli.main import app
from api.client import Client, ProblemError
from engine.keys import Scope, new_key
from engine.store import KeyStore
from tests.api.running import PROBLEM, InProcess, Server, file_of, until
from tests.api.workspaces import write_workspace

DECIDE = {"surface": "home", "user_id": "u1"}


def create(database: str, *scopes: Scope, name: str = "test") -> tuple[str, str]:
    """The id and the secret of a key that is stored."""
    key, secret = new_key(name, scopes, f"{name}-{'-'.join(scopes)}", 1)
    KeyStore(database).add(key)
    return key.id, secret


def path_of(database: str) -> Path:
    """The file that keeps a SQLite log's keys."""
    path = KeyStore(database).path
    assert path is not None
    return path


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@dataclass(frozen=True)
class Guarded:
    """An application that asks for keys, and a secret for each scope."""

    served: InProcess
    secrets: dict[Scope, str]

    def ask(self, method: str, path: str, secret: str | None, **more: Any) -> httpx.Response:
        headers = bearer(secret) if secret is not None else {}
        return self.served.request(method, path, headers=headers, **more)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    database = f"sqlite:///{folder}/log.db"
    secrets = {scope: create(database, scope)[1] for scope in Scope}
    with InProcess(write_workspace(folder / "workspace"), database, keys=True) as served:
        yield Guarded(served, secrets)


def told(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that a response tells, which must be of the status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    return problem


# Who may ask what ---------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/v1/decide", Scope.DECIDE),
    ("POST", "/v1/exposures", Scope.OUTCOMES),
    ("POST", "/v1/outcomes", Scope.OUTCOMES),
    ("GET", "/v1/decisions/nobody", Scope.REPORTS),
    ("POST", "/v1/decisions/nobody/replay", Scope.REPORTS),
    ("GET", "/v1/lift", Scope.REPORTS),
    ("GET", "/v1/ope", Scope.REPORTS),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/nowhere", None),
]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_route_wants_its_scope(
    guarded: Guarded, method: str, path: str, scope: Scope | None
) -> None:
    for given, secret in guarded.secrets.items():
        response = guarded.ask(method, path, secret)
        if scope is None or given in {scope, Scope.ADMIN}:
            assert response.status_code not in {401, 403}, given
        else:
            detail = told(response, 403)["detail"]
            assert f"the scope {scope}" in detail
            assert secret not in response.text


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_no_route_is_answered_without_a_key_in_force(
    guarded: Guarded, method: str, path: str, scope: Scope | None
) -> None:
    good = guarded.secrets[Scope.ADMIN]
    for header in (
        None, "", "Bearer", "Bearer ", f"Bearer {good}x", f"Basic {good}", good, f"Bearer {good} x",
        "Bearer é", f"Bearer {KeyStore(guarded.served.database).all()[0].digest.hex()}",
    ):  # fmt: skip
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        response = guarded.served.request(method, path, headers=headers)
        told(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert good not in response.text


def test_a_key_is_not_read_from_the_query(guarded: Guarded) -> None:
    told(guarded.served.get("/metrics", params={"key": guarded.secrets[Scope.ADMIN]}), 401)


def test_a_key_is_asked_for_before_the_body_is_looked_at(guarded: Guarded) -> None:
    for content in (b"{", b" " * 2_000_000):
        told(guarded.served.request("POST", "/v1/outcomes", content=content), 401)


def test_health_and_the_description_are_open(guarded: Guarded) -> None:
    for path in ("/healthz", "/openapi.json"):
        assert guarded.served.get(path).status_code == 200


def test_a_key_decides_peeks_and_follows_up(guarded: Guarded) -> None:
    decide, outcomes = guarded.secrets[Scope.DECIDE], guarded.secrets[Scope.OUTCOMES]
    answer = guarded.ask("POST", "/v1/decide", decide, json=DECIDE).json()
    peek = guarded.ask("POST", "/v1/decide", decide, json=DECIDE | {"mode": "peek"})
    assert peek.json()["decision_id"] is None
    shown = {"decision_id": answer["decision_id"]}
    assert guarded.ask("POST", "/v1/exposures", outcomes, json=shown).json()["accepted"] == 2


def test_the_scheme_is_read_in_any_case(guarded: Guarded) -> None:
    headers = {"Authorization": f"bearer {guarded.secrets[Scope.REPORTS]}"}
    assert guarded.served.get("/metrics", headers=headers).status_code == 200


def test_every_route_is_described_with_its_scope_and_refusals(guarded: Guarded) -> None:
    document = guarded.served.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, item in document["paths"].items():
        for operation in item.values():
            scope = scope_of(path)
            refusals = operation["responses"].keys() & {"401", "403", "429"}
            if is_open(path):
                assert operation["security"] == []
                assert refusals == set()
            else:
                assert operation["security"] == [{"key": [scope] if scope else []}]
                assert refusals == {"401", "429"} | ({"403"} if scope else set())
            assert (scope is not None) == path.startswith("/v1/"), path


def test_a_server_without_keys_describes_none(served: InProcess) -> None:
    document = served.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in o for item in document["paths"].values() for o in item.values())


# How often ----------------------------------------------------------------------------------------


def test_a_bucket_holds_a_second_and_refills_steadily() -> None:
    now = 0.0
    buckets = TokenBuckets(4.0, lambda: now)
    assert [buckets.wait_s("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert buckets.wait_s("b") == 0
    now = 0.25
    assert [buckets.wait_s("a") for _ in range(2)] == [0, 1]
    now = 100.0
    assert [buckets.wait_s("a") for _ in range(5)] == [0, 0, 0, 0, 1]


def test_a_slow_rate_says_how_many_seconds_to_wait() -> None:
    now = 0.0
    buckets = TokenBuckets(0.1, lambda: now)
    assert [buckets.wait_s("a") for _ in range(2)] == [0, 10]
    now = 9.5
    assert buckets.wait_s("a") == 1
    now = 10.5
    assert buckets.wait_s("a") == 0


def test_a_key_that_asks_too_often_is_told_when_to_come_again(folder: Path, database: str) -> None:
    _, busy = create(database, Scope.DECIDE, name="busy")
    _, calm = create(database, Scope.DECIDE, name="calm")
    with InProcess(folder, database, keys=True, rate=0.01) as served:
        assert served.request("POST", "/v1/decide", json=DECIDE, headers=bearer(busy)).is_success
        response = served.request("POST", "/v1/decide", json=DECIDE, headers=bearer(busy))
        assert "busy" in told(response, 429)["detail"]
        assert 1 <= int(response.headers["retry-after"]) <= 100
        assert served.request("POST", "/v1/decide", json=DECIDE, headers=bearer(calm)).is_success
        assert served.get("/healthz").status_code == 200


# What every answer holds --------------------------------------------------------------------------


def assert_headed(response: httpx.Response) -> None:
    for name, value in SECURITY_HEADERS.items():
        assert response.headers.get_list(name) == [value], response.status_code


def test_every_answer_has_the_security_headers(guarded: Guarded) -> None:
    admin = guarded.secrets[Scope.ADMIN]
    asked = [
        ("GET", "/healthz", 200), ("GET", "/metrics", 200), ("GET", "/nowhere", 404),
        ("PUT", "/v1/decide", 405), ("POST", "/v1/decide", 400),
    ]  # fmt: skip
    for method, path, status in asked:
        response = guarded.ask(method, path, admin)
        assert response.status_code == status
        assert_headed(response)
    assert_headed(guarded.ask("GET", "/metrics", None))


def test_an_unforeseen_failure_has_them_too(served: InProcess, monkeypatch: Any) -> None:
    monkeypatch.setattr(served.app.state, "telemetry", None)
    response = served.get("/metrics")
    told(response, 500)
    assert_headed(response)


def test_an_unforeseen_failure_of_a_decision_has_them_too(
    served: InProcess, monkeypatch: Any
) -> None:
    served.journal.entries.clear()
    monkeypatch.setattr(served.app.state, "engine", None)
    response = served.request("POST", "/v1/decide", json=DECIDE)
    told(response, 500)
    assert_headed(response)
    assert served.journal.entries == [("failed", {"error": "AttributeError"})]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/healthz", {"x-large": "x" * 33_000}), (f"/healthz?{'x' * 33_000}", {})],
    ids=["header", "query"],
)
def test_a_head_that_is_too_large_is_refused(
    served: InProcess, path: str, headers: dict[str, str]
) -> None:
    response = served.get(path, headers=headers)
    assert "32,768" in told(response, 431)["detail"]
    assert_headed(response)


# A server of its own ------------------------------------------------------------------------------


def raw(url: str, *parts: bytes) -> bytes:
    """All that a server answers to bytes, until it closes."""
    host, port = url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
        return answer


def test_a_running_server_follows_keys_and_keeps_secrets_out_of_its_log(
    folder: Path, database: str, tmp_path: Path
) -> None:
    with Server(folder, database, tmp_path / "log", "--host=0.0.0.0", keys=True) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert server.logged("no keys")
        wrong = "evh_wrong-secret"
        with Client(url, key=wrong) as client, pytest.raises(ProblemError, match="401"):
            client.decide("home", user_id="u1")
        id_, secret = create(database, Scope.DECIDE)
        headers = bearer(secret)
        until(lambda: httpx.get(f"{url}/metrics", headers=headers).is_success, "the key to hold")
        with Client(url, key=secret) as client:
            assert client.decide("home", user_id="u1")["logged"]
            with pytest.raises(ProblemError, match="403") as refused:
                client.outcome("watch", 1.0, user_id="u1")
            assert secret not in str(refused.value)
        httpx.get(f"{url}/metrics?key={secret}", headers={"x": secret})
        malformed = raw(url, f"NOT HTTP\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
        endless = raw(url, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", *[b"x" * 20_000] * 2)
        KeyStore(database).revoke(id_, 2)
        until(
            lambda: httpx.get(f"{url}/metrics", headers=headers).status_code == 401,
            "the key to be refused",
        )
        said = "\n".join(server.lines())
    assert secret not in said
    assert wrong not in said
    for answer, status in ((malformed, 400), (endless, 431)):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        for name, value in SECURITY_HEADERS.items():
            assert f"{name}: {value}".lower().encode() in head.lower()
        assert json.loads(body)["status"] == status
    for file in tmp_path.glob("log.db*"):
        assert secret.encode() not in file.read_bytes()


def test_keys_that_cannot_be_read_hold_as_they_were_last_read(folder: Path, database: str) -> None:
    _, secret = create(database, Scope.DECIDE)
    path = path_of(database)
    with InProcess(folder, database, keys=True) as served:
        path.write_bytes(b"nonsense" * 200)

        def journalled() -> bool:
            served.get("/healthz")
            return "keys unreadable" in [event for event, _ in served.journal.entries]

        until(journalled, "the fault to be told")
        assert served.request("GET", "/metrics", headers=bearer(secret)).is_success


def test_keys_that_cannot_be_read_at_the_start_are_bad_input(folder: Path, database: str) -> None:
    path_of(database).write_bytes(b"nonsense" * 200)
    arguments = ["serve", f"--workspace={folder}", f"--database={database}", "--port=0"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2
    assert "log.db.keys" in "".join(ran.stderr.split())


# The command line ---------------------------------------------------------------------------------


def run(database: str, *arguments: str, status: int = 0) -> Any:
    """What ``evenhand keys … --json`` prints."""
    ran = CliRunner().invoke(app, ["keys", *arguments, f"--database={database}", "--json"])
    assert ran.exit_code == status, ran.stderr
    return json.loads(ran.stdout if status == 0 else ran.stderr)


def test_a_key_is_created_listed_without_its_secret_and_revoked(database: str) -> None:
    created = run(database, "create", "--name=web", "--scope=outcomes", "--scope=decide")
    secret = created.pop("secret")
    assert created["name"] == "web"
    assert created["scopes"] == ["decide", "outcomes"]
    listed = run(database, "list")
    assert listed == {"keys": [created]}
    assert secret not in json.dumps(listed)
    assert run(database, "revoke", created["id"]) == {"id": created["id"], "revoked": True}
    assert run(database, "list")["keys"][0]["revoked_at"] is not None
    again = run(database, "revoke", created["id"], status=2)
    assert "no key in force" in again["message"]


def test_the_secret_stands_alone_on_standard_output(database: str) -> None:
    arguments = ["keys", "create", "--name=web", "--scope=decide", f"--database={database}"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.stdout.startswith("evh_")
    assert len(ran.stdout.split()) == 1
    assert "shown only now" in ran.stderr
    assert ran.stdout.strip() not in ran.stderr
    assert stat.S_IMODE(path_of(database).stat().st_mode) == 0o600


def test_a_name_that_is_none_is_bad_input(database: str) -> None:
    assert run(database, "create", "--name=a b", "--scope=decide", status=2)["field"] == "name"
    assert not path_of(database).exists()


def test_a_table_of_keys_names_them(database: str) -> None:
    id_, _ = create(database, Scope.REPORTS, name="analyst")
    ran = CliRunner().invoke(app, ["keys", "list", f"--database={database}"])
    assert id_ in ran.stdout
    assert "reports" in ran.stdout


def test_the_log_can_be_copied_while_its_server_writes(
    folder: Path, database: str, tmp_path: Path
) -> None:
    """As docs/operations.md says to make a backup."""
    copy = tmp_path / "copy.db"
    with InProcess(folder, database) as served:
        id_ = served.decide()["decision_id"]
        with closing(sqlite3.connect(file_of(database))) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        served.decide("u2")
    with InProcess(folder, f"sqlite:///{copy}") as restored:
        assert restored.get(f"/v1/decisions/{id_}").status_code == 200
        assert restored.post(f"/v1/decisions/{id_}/replay").json()["identical"]


# The client ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "evh_a b", "evh_a\n", "evh_é"])
def test_a_key_that_is_none_is_not_repeated_in_the_message(key: str) -> None:
    with pytest.raises(ValueError, match="`key` holds") as refused:
        Client("http://127.0.0.1:9", key=key)
    assert not key or key not in str(refused.value)
