"""What goes over the wire, and in how many pieces."""

from __future__ import annotations

import asyncio
from typing import cast

from api.protocol import JoinedWrites


class Wire:
    """A transport that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def joined(wire: Wire) -> JoinedWrites:
    return JoinedWrites(cast("asyncio.Transport", wire))


def test_what_one_step_writes_is_sent_in_one_piece() -> None:
    async def main() -> list[bytes]:
        wire = Wire()
        transport = joined(wire)
        for parts in ((b"head ", b"body"), (b"next",)):
            for part in parts:
                transport.write(part)
            assert wire.sent[-1:] != [b"".join(parts)]
            await asyncio.sleep(0)
        return wire.sent

    assert asyncio.run(main()) == [b"head body", b"next"]


def test_a_close_sends_what_was_written_first() -> None:
    async def main() -> None:
        wire = Wire()
        transport = joined(wire)
        transport.write(b"last")
        transport.close()
        assert wire.sent == [b"last"]
        assert transport.is_closing()
        await asyncio.sleep(0)
        assert wire.sent == [b"last"]

    asyncio.run(main())
