"""Children that work beside a server leave the processor to it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from engine.learner import NICENESS, yield_to_server


def of_session(pid: int) -> int | None:
    """How nice the session is that a process leads, None where the system knows no such thing."""
    file = Path(f"/proc/{pid}/autogroup")
    return int(file.read_text(encoding="ascii").split()[-1]) if file.exists() else None


def test_a_child_yields_to_the_server_though_it_has_a_session_of_its_own() -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        yield_to_server(child)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == NICENESS
        assert of_session(child.pid) in {None, NICENESS}
        child.kill()
        await child.communicate()
        yield_to_server(child)

    asyncio.run(main())
