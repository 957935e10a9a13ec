"""Vowpal Wabbit's bandits behind our protocol.

`policies.vw.library` alone knows the library; `policies.vw.text` writes what it reads.
"""

from policies.vw.continuous import VowpalWabbitContinuous
from policies.vw.explorers import VowpalWabbit

__all__ = ["VowpalWabbit", "VowpalWabbitContinuous"]
