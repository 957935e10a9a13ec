"""Runs the console sessions of a document and compares what they print with what it shows."""

from __future__ import annotations

import doctest
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a session, what the document shows of its output, and its line there."""

    command: str
    shown: str
    line: int


def steps(document: Path) -> Iterator[Step]:
    """Every command of a document's console blocks, in order."""
    text = document.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1)) + 1
        for part in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield Step(command, shown, line)
            line += part.count("\n")


def run(document: Path, folder: Path, variables: dict[str, str] | None = None) -> list[str]:
    """Run a document's sessions in a folder; a description of each output that differs.

    ``...`` in the document stands for anything, and white space is not compared. Commands see
    the repository's ``examples`` and ``.venv`` beside them, and a free port in place of 8000. One
    that ends in ``&`` goes on in the background until the document's end.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    port = _free_port()
    environment = os.environ | {"COLUMNS": "160", "PYTHONPATH": str(ROOT)} | (variables or {})
    background: list[subprocess.Popen[bytes]] = []
    differing = []
    try:
        for step in steps(document):
            command = step.command.replace("8000", str(port))
            if command.rstrip().endswith("&"):
                background.append(
                    subprocess.Popen(
                        ["bash", "-c", f"exec {command.rstrip(' &')}"],
                        cwd=folder,
                        env=environment,
                        stderr=subprocess.DEVNULL,
                    )
                )
                _wait_for(port, background[-1])
                continue
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0 or not _agrees(step.shown, done.stdout):
                differing.append(
                    f"{document.name}:{step.line}: $ {command}\n(status {done.returncode})\n"
                    f"{done.stdout}\n{done.stderr}"
                )
    finally:
        for process in background:
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE_S)
    return differing


def _agrees(shown: str, printed: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(shown, printed, flags)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on port {port}")
