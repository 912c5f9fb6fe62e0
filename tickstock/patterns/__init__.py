"""Patterns: one file each, found by being in this folder (or in the operator's own).

    @pattern("Doji", candles=1, parameters={"max_body": 0.1})
    def doji(c: Candles, p: Parameters) -> Found | None:
        ...

A pattern judges the last candles of many windows at once and says where it is. It sees completed
candles only, and must depend on nothing else, neither on the windows beside: the same candles give
the same answer, live or years later.
"""

from tickstock.patterns.definition import (
    Bools,
    Candles,
    Direction,
    Floats,
    Found,
    FoundAt,
    Parameters,
    Pattern,
    PythonPattern,
    SqlPattern,
    pattern,
)
from tickstock.patterns.discovery import discover

__all__ = [
    "Bools",
    "Candles",
    "Direction",
    "Floats",
    "Found",
    "FoundAt",
    "Parameters",
    "Pattern",
    "PythonPattern",
    "SqlPattern",
    "discover",
    "pattern",
]
