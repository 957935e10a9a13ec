"""Learning beside a server: a child process reads the log and hands back snapshots.

The child (``python -m engine.learner``) opens the database that the environment names, for reading
only. It takes requests and gives replies as length-prefixed msgpack on its standard input and
output, and ends when its input closes, as it does when the server is killed.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from engine.errors import EngineError, RequestError
from engine.learning import learn
from engine.log import PromotionEntry, SnapshotEntry
from engine.revisions import Revisions
from engine.store import Store

DATABASE_VARIABLE = "EVENHAND_DATABASE"
"""How a child is told the address: arguments, which may hold a password, are for all to see."""

NICENESS = 5
"""The priority, as ``nice`` counts, of children that work beside a server."""

_LENGTH = struct.Struct(">I")


class LearnRequest(msgspec.Struct, frozen=True, tag="learn"):
    """Learn under a revision from all that is durable up to ``until_us``."""

    revision: str
    until_us: int
    now_us: int


class LearnReply(msgspec.Struct, frozen=True):
    """The snapshots of the learners that learned something, and what went wrong for others."""

    snapshots: list[SnapshotEntry]
    warnings: list[str]


class JudgeRequest(msgspec.Struct, frozen=True, tag="judge"):
    """Judge a learner's candidate under a revision by what is durable up to ``until_us``."""

    revision: str
    learner: str
    until_us: int
    now_us: int


class JudgeReply(msgspec.Struct, frozen=True):
    """What an attempt came to, or why there was none: the field to blame, if it is the asker's."""

    report: dict[str, Any] = {}
    entry: PromotionEntry | None = None
    fault: tuple[str, str, str] | None = None


Reply = TypeVar("Reply", LearnReply, JudgeReply)


class LearnerProcess:
    """The server's end of the child."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def learn(self, request: LearnRequest) -> LearnReply:
        """What the child makes of the log.

        Raises
        ------
        EngineError
            If the child died; the next call starts another.
        """
        return await self._asked(request, LearnReply)

    async def judge(self, request: JudgeRequest) -> JudgeReply:
        """What the child finds of a candidate, between two runs of learning.

        Raises
        ------
        EngineError
            If the child died; the next call starts another.
        """
        return await self._asked(request, JudgeReply)

    async def _asked(self, request: LearnRequest | JudgeRequest, reply: type[Reply]) -> Reply:
        async with self._turn:
            return await self._answer(request, reply)

    async def _answer(self, request: LearnRequest | JudgeRequest, reply: type[Reply]) -> Reply:
        process = await self._running()
        if process.stdin is None or process.stdout is None:
            raise EngineError("the learner's pipes are closed")
        try:
            data = msgspec.msgpack.encode(request)
            process.stdin.write(_LENGTH.pack(len(data)) + data)
            await process.stdin.drain()
            (size,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=reply)
        except (OSError, asyncio.IncompleteReadError) as error:
            code = await process.wait()
            self._process = None
            raise EngineError(f"the learner ended with status {code}") from error

    async def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            # -P: what stands where the server was started is not ours. A session of its own: an
            # interrupt from the terminal is the server's to handle.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "engine.learner",
                stdin=PIPE, stdout=PIPE, start_new_session=True,
                env=os.environ | {DATABASE_VARIABLE: self._url},
            )  # fmt: skip
            yield_to_server(self._process)
        return self._process


def yield_to_server(child: Process) -> None:
    """Let a child that was just started run only where no decision wants the processor."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        # Outside of containers Linux weighs sessions, not processes, against one another.
        Path(f"/proc/{child.pid}/autogroup").write_text(str(NICENESS), encoding="ascii")


def serve_requests(url: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer learning requests until their stream ends."""
    with Store(url) as store:
        revisions = Revisions(store)
        while head := requests.read(_LENGTH.size):
            (size,) = _LENGTH.unpack(head)
            request = msgspec.msgpack.decode(requests.read(size), type=LearnRequest | JudgeRequest)
            if isinstance(request, JudgeRequest):
                data = msgspec.msgpack.encode(_judged(store, revisions, request))
            else:
                data = msgspec.msgpack.encode(_reply(store, revisions, request))
            replies.write(_LENGTH.pack(len(data)) + data)
            replies.flush()


def _judged(store: Store, revisions: Revisions, request: JudgeRequest) -> JudgeReply:
    from engine.promotion import attempt  # noqa: PLC0415  heavy: frames

    warnings: list[str] = []
    try:
        found = attempt(
            store,
            revisions.get(request.revision),
            request.learner,
            until_us=request.until_us,
            now_us=request.now_us,
            revisions=revisions,
            warn=warnings.append,
        )
    except EngineError as error:
        field = error.field if isinstance(error, RequestError) else ""
        message = error.message if isinstance(error, RequestError) else str(error)
        return JudgeReply(fault=(type(error).__name__, field, message))
    return JudgeReply({**found.report, "warnings": warnings}, found.entry)


def _reply(store: Store, revisions: Revisions, request: LearnRequest) -> LearnReply:
    snapshots: list[SnapshotEntry] = []
    warnings: list[str] = []
    workspace = revisions.get(request.revision)
    for learner in workspace.pupils:
        try:
            learned = learn(
                store,
                workspace,
                learner,
                until_us=request.until_us,
                now_us=request.now_us,
                revisions=revisions,
                warn=warnings.append,
            )
        except EngineError as error:
            warnings.append(str(error))
            continue
        if learned:
            snapshots.append(learned.snapshot)
    return LearnReply(snapshots, warnings)


if __name__ == "__main__":
    serve_requests(os.environ[DATABASE_VARIABLE], sys.stdin.buffer, sys.stdout.buffer)
