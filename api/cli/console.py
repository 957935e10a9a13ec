"""What the command line prints: tables, progress, errors; JSON where a machine reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine.errors import ConfigurationError, EngineError, RequestError
from experiments import ExperimentError

# What is piped or logged has no width of its own: tables then take what they need.
_PIPED_WIDTH = 160
out = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPED_WIDTH)


class Fault(msgspec.Struct, frozen=True):
    """An error as ``--json`` prints it, on standard error."""

    kind: str
    field: str
    message: str


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


@contextmanager
def errors_told(*, as_json: bool = False) -> Iterator[None]:
    """Turn an error of the engine into a message and exit status 2."""
    try:
        yield
    except (EngineError, ExperimentError, OSError) as error:
        fail(error, as_json=as_json)


def fail(error: Exception, *, as_json: bool) -> NoReturn:
    """Say what is wrong on standard error and exit with status 2."""
    if as_json:
        field = error.field if isinstance(error, RequestError) else ""
        message = error.message if isinstance(error, RequestError) else str(error)
        fault = Fault(type(error).__name__, field, message)
        sys.stderr.write(msgspec.json.encode(fault).decode() + "\n")
    elif isinstance(error, ConfigurationError):
        for fault_ in error.faults:
            err.print("[red]✗[/] ", end="")
            err.print(str(fault_), highlight=False, soft_wrap=True, markup=False)
    else:
        err.print("[red]✗[/] ", end="")
        err.print(str(error), highlight=False, soft_wrap=True, markup=False)
    raise SystemExit(2)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Any]:
    """A progress bar on standard error; yields what advances it by a number."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are set right, text left."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and isinstance(rows[0][index], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row))
    out.print(table)


def shown(value: object) -> str:
    """A value as a table's cell: numbers to four digits, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
