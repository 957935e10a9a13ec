"""Seeded worlds whose policy values and lifts are known exactly, and the driver that lives them.

A world says who visits and what every choice would lead to; :func:`run` lets the engine decide on
those visits through the code that serves production; :class:`Truth` says what each policy and
variant is worth there, by enumeration.
"""

from engine.simulate.driver import Progress, VariantMean, run
from engine.simulate.streaming import StreamingWorld
from engine.simulate.tiny import TinyWorld, tiny_workspace
from engine.simulate.truth import Pmf, Truth, UnitLift, untaught
from engine.simulate.world import (
    Response,
    Responses,
    Situation,
    Visit,
    World,
    respond,
)

__all__ = [
    "Pmf",
    "Progress",
    "Response",
    "Responses",
    "Situation",
    "StreamingWorld",
    "TinyWorld",
    "Truth",
    "UnitLift",
    "VariantMean",
    "Visit",
    "World",
    "respond",
    "run",
    "tiny_workspace",
    "untaught",
]
