"""Reports over HTTP: the command line's, in a child process, so that decisions never wait."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from engine.errors import NotFoundError, ReportError, RequestError, StoreError
from engine.request import check_id
from experiments import ExperimentError, parse_units

LONGEST_SECONDS = 120
_AT_ONCE = asyncio.Semaphore(2)


async def run_report(
    request: Request, command: str, options: Sequence[tuple[str, str]], units: str | None
) -> dict[str, Any]:
    """What ``evenhand COMMAND --json`` prints.

    Raises
    ------
    RequestError
        If an option is empty, too long or holds control characters, or ``units`` is no share.
    NotFoundError, ReportError
        As the report does; the message is the command line's.
    StoreError
        If it took longer than two minutes, or the log cannot be read.
    """
    for name, value in options:
        check_id(name.removeprefix("--"), value)
    if units is not None:
        _check_units(units)
    arguments = [f"{name}={value}" for name, value in options]
    if units is not None:
        arguments.append(f"--units={units}")
    url: str = request.app.state.database
    async with _AT_ONCE:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "api.cli", command, f"--database={url}", "--json",
            *arguments, stdout=PIPE, stderr=PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                out, said = await child.communicate()
        except TimeoutError as error:
            raise StoreError(f"the report took longer than {LONGEST_SECONDS} s") from error
        finally:
            if child.returncode is None:
                child.kill()
    if child.returncode == 0:
        report: dict[str, Any] = msgspec.json.decode(out)
        return report
    fault = msgspec.json.decode(said or b"{}", type=dict[str, str])
    if fault.get("kind") == "NotFoundError":
        raise NotFoundError(fault.get("field", ""), fault["message"])
    if fault.get("kind") == "StoreError":
        raise StoreError(fault["message"])
    raise ReportError(fault.get("message", "the report failed"))


def _check_units(units: str) -> None:
    try:
        parse_units(units)
    except ExperimentError as error:
        raise RequestError("units", f'is "{units[:64]}"; {error.faults[0].message}') from error
