"""A local server of the vendor's stocks feed, for when the market is closed, and for tests.

A `Simulator` serves a market over the real protocol: a `RandomMarket`, or a `ReplayMarket` of the
vendor's flat files. It misbehaves on demand: see `Faults`.
"""

from tickstock.simulator.faults import FAULTS, Faults
from tickstock.simulator.market import (
    Market,
    Minute,
    RandomMarket,
    default_start,
    ticker_symbols,
)
from tickstock.simulator.replay import ReplayMarket
from tickstock.simulator.server import Simulator

__all__ = [
    "FAULTS",
    "Faults",
    "Market",
    "Minute",
    "RandomMarket",
    "ReplayMarket",
    "Simulator",
    "default_start",
    "ticker_symbols",
]
