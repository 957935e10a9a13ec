"""PostgreSQL alone: turns to write, the learner's place, connections that break, settings."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from engine.errors import StoreError, StoreLostError
from engine.ids import uuid7
from engine.log import (
    DecisionEntry,
    Entry,
    OutcomesEntry,
    Repeated,
    Result,
    Stored,
    VoidEntry,
    decision_entry,
)
from engine.request import DecideRequest
from engine.store import KeyStore, Store
from engine.store import read as ask
from tests.engine.build import NOW, decided, execute, outcome, serving_of, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    slots: {layout: {default: A, actions: {A: {value: 1}, B: {value: 2}}}}
"""
SERVING = serving_of(workspace_of(WORLD))
LIMIT_S = 20


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def _entry(number: int, request_id: str | None = None) -> DecisionEntry:
    asked = DecideRequest(surface="home", user_id=str(number), request_id=request_id)
    record = decided(SERVING, "home", number, number=number, at=NOW, request_id=request_id)
    return decision_entry(record, asked)


def _outcome(number: int) -> OutcomesEntry:
    return OutcomesEntry((outcome(f"o{number}", f"u:{number}"),))


@contextmanager
def _turn_held(url: str) -> Iterator[psycopg.Connection]:
    """Another connection has the turn to write, for as long as this lasts."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT until_us FROM settled FOR UPDATE")
        yield connection


def _waiting_for_the_turn(url: str) -> list[int]:
    query = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(LIMIT_S * 50):
            found = [row[0] for row in connection.execute(query)]
            if found:
                return found
            connection.execute("SELECT pg_sleep(0.02)")
    raise AssertionError("nobody waits for the turn")


# Turns -------------------------------------------------------------------------------------------


def test_a_request_id_that_two_writers_store_at_once_is_stored_once(url: str) -> None:
    with Store(url, writer="a") as first, Store(url, writer="b") as second:

        def write(store: Store, offset: int) -> list[Result]:
            return [
                result
                for n in range(60)
                for result in store.write([_entry(offset + n, f"r{n}")], NOW)
            ]

        with ThreadPoolExecutor(2) as threads:
            results = zip(
                *threads.map(lambda given: write(*given), [(first, 0), (second, 1_000)]),
                strict=True,
            )
        for pair in results:
            assert {type(result) for result in pair} == {Stored, Repeated}
        assert first.read(ask.counts)["decisions"] == 60


def test_log_positions_are_in_the_order_of_commits(url: str) -> None:
    """Else a reader that goes on after the last position it saw would pass one over."""
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        with Store(url) as reader:
            while True:
                last = done.is_set()
                rows = reader.read(lambda c: ask.outcomes_after(c, seen[-1] if seen else 0, 1_000))
                seen.extend(row.seq for row in rows)
                if last and not rows:
                    return

    def write(writer: int) -> None:
        with Store(url, writer="tests") as store:
            for number in range(100):
                store.write([_outcome(writer * 1_000 + number)], NOW)

    Store(url, writer="tests").close()
    follower = threading.Thread(target=follow)
    follower.start()
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, range(3)))
    done.set()
    follower.join()
    assert len(seen) == 300


def test_a_writer_waits_for_its_turn(url: str) -> None:
    with Store(url, writer="a") as store, ThreadPoolExecutor(1) as thread:
        with _turn_held(url):
            writing = thread.submit(store.write, [_outcome(1)], NOW)
            _waiting_for_the_turn(url)
            assert not writing.done()
        assert writing.result(LIMIT_S) == [Stored(1, 0, 0)]


def test_replicas_may_open_an_empty_database_at_the_same_time(url: str) -> None:
    def opened(number: int) -> int:
        with Store(url, writer=f"replica {number}") as store:
            return store.read(ask.settled)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(opened, range(4))) == [0] * 4


# The learner's place -----------------------------------------------------------------------------


def test_one_process_has_the_learners_place_until_it_is_closed(url: str) -> None:
    with Store(url, writer="b") as second:
        with Store(url, writer="a") as first:
            assert [first.lead(), first.lead(), second.lead(), first.lead()] == [
                True, True, False, True,
            ]  # fmt: skip
        assert second.lead()


def test_the_place_is_lost_with_its_connection_and_can_be_taken_again(url: str) -> None:
    with Store(url, writer="a") as first, Store(url, writer="b") as second:
        assert first.lead()
        holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        execute(url, holders)
        assert not first.lead()
        assert second.lead()
        assert not first.lead()


# Connections that break --------------------------------------------------------------------------


def test_a_write_whose_connection_is_cut_is_written_once_by_another(url: str) -> None:
    with Store(url, writer="a") as store, ThreadPoolExecutor(1) as thread:
        with _turn_held(url) as connection:
            writing = thread.submit(store.write, [_entry(1), _outcome(1)], NOW)
            (pid,) = _waiting_for_the_turn(url)
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        assert writing.result(LIMIT_S) == [Stored(), Stored(1, 0, 0)]
        assert store.read(ask.counts)["decisions"] == 1


class CutOff(Store):
    """A store whose connection breaks after commits, before they are heard of."""

    cuts = 1

    def _write(
        self, entries: Sequence[Entry], now_us: int, *, live: bool, again: bool = False
    ) -> list[Result]:
        results = super()._write(entries, now_us, live=live, again=again)
        if self.cuts:
            self.cuts -= 1
            raise StoreLostError("cut off", unsure=True)
        return results


def test_what_was_committed_unheard_is_found_and_not_stored_again(url: str) -> None:
    with CutOff(url, writer="a") as store:
        asked: list[Entry] = [_entry(1, "r"), _entry(2), _outcome(1)]
        assert store.write(asked, NOW) == [Stored(), Stored(), Stored(0, 1, 0)]
        assert store.read(ask.counts)["decisions"] == 2
        late = [_entry(3)]
        store.cuts = 2
        with pytest.raises(StoreLostError) as caught:
            store.write(late, NOW)
        assert caught.value.unsure


def test_a_server_that_cannot_be_reached_is_told_without_the_password() -> None:
    with pytest.raises(StoreLostError, match="cannot be opened") as caught:
        Store("postgresql://somebody:hunter2@127.0.0.1:1/log", writer="tests")
    assert not caught.value.unsure
    assert "hunter2" not in str(caught.value)
    assert "somebody:***@127.0.0.1:1/log" in str(caught.value)


def test_a_database_that_does_not_exist_is_told(url: str) -> None:
    missing = make_url(url).set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match='database "nowhere" does not exist'):
        Store(missing, writer="tests")


def test_values_of_a_refused_row_are_not_in_the_message(url: str) -> None:
    with Store(url, writer="a") as store:
        entry = _entry(1)
        with pytest.raises(StoreError, match="duplicate key") as caught:
            store.write([entry, entry], NOW)
        assert entry.record.decision_id not in str(caught.value)


# Settings ----------------------------------------------------------------------------------------


def test_a_reader_may_not_write(url: str) -> None:
    with Store(url, writer="a") as store, Store(url) as reader:
        store.write([_outcome(1)], NOW)
        with pytest.raises(StoreError, match="read-only"):
            reader.read(lambda c: c.execute(text("DELETE FROM outcomes")))
        assert store.read(ask.counts)["outcomes"] == 1


def test_a_commit_is_on_the_disk_whatever_the_servers_default_is(url: str) -> None:
    database = make_url(url).database
    execute(url, f'ALTER DATABASE "{database}" SET synchronous_commit = off')
    with Store(url, writer="a") as store:
        assert store.read(lambda c: c.scalar(text("SHOW synchronous_commit"))) == "on"


def test_ids_are_ordered_by_their_code_points(url: str) -> None:
    """As Python orders them, on whose order positions of learning rest."""
    with Store(url, writer="a") as store:
        ids = sorted([uuid7(NOW, 1), "b", "B", "a-1", "a1", "_"])
        store.write([VoidEntry(id_, "r") for id_ in reversed(ids)], NOW)
        assert [row.decision_id for row in store.read(ask.void_rows)] == ids


# Databases that do not answer --------------------------------------------------------------------


def test_a_host_that_accepts_and_says_nothing_is_lost(url: str) -> None:
    """It has no state to tell the error by, and is an error of a kind of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = f"postgresql://somebody@127.0.0.1:{port}/log?connect_timeout=2"
        with pytest.raises(StoreLostError, match="cannot be opened"):
            Store(address, writer="tests")


def test_whoever_waits_for_a_silent_database_is_cut_off(url: str) -> None:
    with Store(url, writer="a") as store, ThreadPoolExecutor(1) as thread:
        with _turn_held(url):
            writing = thread.submit(store.write, [_outcome(1)], NOW)
            _waiting_for_the_turn(url)
            store.cut()
            # Its turn may come on a new connection, for which it asks by itself.
            _waiting_for_the_turn(url)
        assert writing.result(LIMIT_S) == [Stored(1, 0, 0)]
        assert store.read(ask.counts)["outcomes"] == 1


def test_a_password_in_the_query_of_an_address_is_not_shown(url: str) -> None:
    for writer in (None, "tests"):
        with pytest.raises(StoreError) as caught:
            Store("postgresql://u@127.0.0.1:1/log?password=hunter2", writer=writer)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in KeyStore("postgresql://u@127.0.0.1:1/log?password=hunter2").name


def test_turns_hold_whatever_the_databases_isolation_is(url: str) -> None:
    """What is read after waiting must be what was committed in the turns before."""
    database = make_url(url).database
    execute(url, f'ALTER DATABASE "{database}" SET default_transaction_isolation = "serializable"')
    with Store(url, writer="a") as first, Store(url, writer="b") as second:
        with ThreadPoolExecutor(2) as threads:
            results = threads.map(
                lambda given: [
                    given[0].write([_entry(given[1] + n, f"r{n}")], NOW) for n in range(40)
                ],
                [(first, 0), (second, 1_000)],
            )
            pairs = list(zip(*results, strict=True))
        assert {type(result) for pair in pairs for (result,) in pair} == {Stored, Repeated}
        assert first.read(ask.counts)["decisions"] == 40
