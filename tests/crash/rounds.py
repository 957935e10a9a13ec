"""Rounds of load and a kill, on one database, and the verdict at their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from threading import Thread

from engine.store import Store
from engine.workspace import load_workspace
from tests.api.running import Server, until
from tests.crash.check import all_learned, findings
from tests.crash.load import Client, Told, together

CLIENTS = 4
LEARN_EVERY_S = 0.1
STARTING_S = 1.5
KILLS = ("server", "learner", "server at its start")
"""What the rounds kill in turn; the last two kill the server, too."""

WORKSPACE = """
surfaces:
  home:
    owner: growth@example.com
    attributes: {weeks: integer}
    metrics: {watch: {window: 50ms, aggregate: sum}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: flat
        policy: layout
        actions: {flat: {value: 1}, B: {value: 2}}
      badge:
        default: none
        policy: badge
        actions: {none: {value: 1}, gold: {value: 2}, silver: {value: 3}}
policies:
  layout: {kind: lin_ucb, floor: 0.2}
  badge: {kind: thompson_gaussian, draw: sticky, period: 3s}
holdouts: {global: {share: 0.1}}
layers:
  only:
    quick_test:
      range: [0.0, 0.5]
      variants: {control: {slots: {home.layout: flat}}, b: {slots: {home.layout: B}}}
"""


@dataclass
class Verdict:
    """How the rounds went: kills by kind, what clients were told, and what was found amiss."""

    kills: dict[str, int] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    findings: list[str] = field(default_factory=list)


def crash(
    folder: Path,
    database: str,
    rounds: int,
    seed: int,
    progress: Callable[[str], None],
    replicas: int = 1,
) -> Verdict:
    """Run the rounds with their files in ``folder``, then check the database.

    Of several replicas each round kills another, while clients go on with the rest.
    """
    workspace = folder / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "all.yaml").write_text(WORKSPACE, encoding="utf-8")
    random = Random(seed)
    shared = count()
    clients = [Client(f"c{number}", seed, shared) for number in range(CLIENTS * replicas)]
    verdict = Verdict()
    learn = f"--learn-every={LEARN_EVERY_S}"
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(workspace, database, folder / f"server{n}.log", learn))
            for n in range(replicas)
        ]
        for number in range(rounds):
            kind = KILLS[number % len(KILLS)]
            _round(servers, number % replicas, clients, random, kind)
            verdict.kills[kind] = verdict.kills.get(kind, 0) + 1
            known = _acknowledged(clients)
            progress(f"round {number + 1}/{rounds}: {kind} killed, {known:,} acknowledged")
            if _refused(clients):
                break
        for number, client in enumerate(clients):
            # What one replica did not answer, another does.
            client.settle(servers[(number + 1) % replicas].url)
        reader = stack.enter_context(Store(database))
        loaded = load_workspace(workspace)
        with suppress(AssertionError):
            # What a learner never passes is among the findings.
            until(lambda: all_learned(reader, loaded), "all to be learned")
        for server in servers:
            server.signal(signal.SIGTERM)
            server.ended()
        verdict.told = together(clients)
        verdict.findings = findings(reader, loaded, verdict.told, seed)
    return verdict


def _round(
    servers: Sequence[Server], victim: int, clients: list[Client], random: Random, kind: str
) -> None:
    """Load the servers, kill one of them or its learner amid that, and leave all running."""
    server = servers[victim]
    threads = [
        Thread(target=client.work, args=(servers[number % len(servers)].url,))
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    _loaded(clients, random)
    if kind == "learner" and not _refused(clients):
        _kill_learner([one.pid for one in servers])
        _loaded(clients, random)
    if kind != "server at its start":
        # Else no learner would ever live to store what it learned.
        until(
            lambda: _refused(clients) or any(one.logged("learned") for one in servers),
            "a snapshot",
        )
    time.sleep(random.uniform(0, 0.02))
    server.kill()
    if kind == "server at its start":
        server.spawn()
        time.sleep(random.uniform(0, STARTING_S))
        server.kill()
    server.start()
    for client in clients:
        client.stop()
    for thread in threads:
        thread.join()


def _loaded(clients: list[Client], random: Random) -> None:
    """Wait until some more things are acknowledged, or something is refused."""
    enough = _acknowledged(clients) + random.randint(20, 200)
    until(lambda: _refused(clients) or _acknowledged(clients) >= enough, "load")


def _acknowledged(clients: list[Client]) -> int:
    return sum(client.told.acknowledged for client in clients)


def _refused(clients: list[Client]) -> bool:
    return any(client.told.refusals for client in clients)


def _kill_learner(servers: Sequence[int]) -> None:
    """Kill −9 the child of one of the servers, waited for."""

    def killed() -> bool:
        for pid in (child for server in servers for child in _children(server)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    until(killed, "the learner to run")


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The command's name, in parentheses, may hold anything; what follows it does not.
            state, ppid = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found
