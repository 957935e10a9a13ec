"""Reports over HTTP: the command line's, in a child process, so that decisions never wait."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from engine.errors import EngineError, NotFoundError, ReportError, RequestError, StoreError
from engine.learner import DATABASE_VARIABLE, yield_to_server
from engine.request import check_id
from experiments import ExperimentError, parse_units

AT_ONCE = 2
MOST_WAITING = 4
LONGEST_SECONDS = 120
# -P: what stands where the server was started is not ours.
COMMAND_LINE = (sys.executable, "-P", "-m", "api.cli")
_LONGEST_SAID = 500


class _Fault(msgspec.Struct, frozen=True):
    """An error of the command line, as ``--json`` prints it."""

    kind: str
    field: str
    message: str


_READ_FAULT = msgspec.json.Decoder(_Fault).decode
_READ_REPORT = msgspec.json.Decoder(dict[str, Any]).decode
# What the request or the log is to blame for; all else is the engine's failure.
_ERRORS: Mapping[str, Callable[[_Fault], EngineError]] = {
    "RequestError": lambda fault: RequestError(fault.field, fault.message),
    "NotFoundError": lambda fault: NotFoundError(fault.field, fault.message),
    "ReportError": lambda fault: ReportError(fault.message),
    "StoreError": lambda fault: StoreError(fault.message),
    "StoreLostError": lambda fault: StoreError(fault.message),
}


class Reports:
    """Makes reports on one database: two at once, while four more wait."""

    def __init__(self, database: str, program: Sequence[str] = COMMAND_LINE) -> None:
        self._database = database
        self._program = program
        self._places = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def make(
        self, command: str, options: Sequence[tuple[str, str]], units: str | None
    ) -> dict[str, Any]:
        """What ``evenhand COMMAND --json`` prints.

        Raises
        ------
        RequestError
            If an option is empty, too long or holds control characters, or ``units`` is no share.
        NotFoundError, ReportError
            As the report does; the message is the command line's.
        StoreError
            If the log cannot be read.
        EngineError
            If the child died; the message ends with the last that it said.
        HTTPException
            503 if too many wait already, or if it took longer than two minutes.
        """
        for name, value in options:
            check_id(name.removeprefix("--"), value)
        arguments = [f"{name}={value}" for name, value in options]
        if units is not None:
            _check_units(units)
            arguments.append(f"--units={units}")
        if self._asked >= AT_ONCE + MOST_WAITING:
            said = f"{MOST_WAITING} reports wait to be made already; ask again later"
            raise HTTPException(503, said, headers={"Retry-After": "10"})
        self._asked += 1
        try:
            async with self._places:
                return await self._made(command, arguments)
        finally:
            self._asked -= 1

    async def _made(self, command: str, arguments: Sequence[str]) -> dict[str, Any]:
        child = await asyncio.create_subprocess_exec(
            *self._program, command, "--json", *arguments,
            stdout=PIPE, stderr=PIPE, start_new_session=True,
            env=os.environ | {DATABASE_VARIABLE: self._database},
        )  # fmt: skip
        yield_to_server(child)
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                out, err = await child.communicate()
        except TimeoutError as error:
            said = f"the report took longer than {LONGEST_SECONDS} s; ask for fewer units"
            raise HTTPException(503, said, headers={"Retry-After": "60"}) from error
        finally:
            if child.returncode is None:
                child.kill()
        # Warnings may precede it.
        last = (err.splitlines() or [b""])[-1]
        try:
            if child.returncode == 0:
                return _READ_REPORT(out)
            fault = _READ_FAULT(last)
        except msgspec.DecodeError as error:
            said = last.decode(errors="replace")[:_LONGEST_SAID] or "nothing"
            raise EngineError(f"a report ended with status {child.returncode}: {said}") from error
        known = _ERRORS.get(fault.kind)
        raise known(fault) if known else EngineError(f"a report failed: {fault.message}")


def _check_units(units: str) -> None:
    try:
        parse_units(units)
    except ExperimentError as error:
        raise RequestError("units", f'is "{units[:64]}"; {error.faults[0].message}') from error
