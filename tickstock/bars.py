"""The minute bar: the one record that travels from the feed and from files into `ohlcv_1min`."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

Number = int | float | Decimal


class Bar(NamedTuple):
    """One symbol's trading in one minute.

    `ts` is the minute's start, timezone-aware, UTC. Prices are in the listing's currency, unadjusted.
    `volume` is in shares and may be fractional. `vwap` and `trades` are None where the source does
    not tell them (flat files have no vwap, the live feed has no trade count).
    Numbers are kept as they arrived: a float's shortest form is what the feed sent.
    """

    symbol: str
    ts: datetime
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    vwap: Number | None = None
    trades: int | None = None


class Refusal(NamedTuple):
    """Something that came in and could not become a bar: why, and the input itself (shortened)."""

    source: str
    """Where it came from: `feed`, `rest`, or the file's name."""
    reason: str
    payload: str


class Block(NamedTuple):
    """A stretch of a minute flat file: its bars as text that the database reads, and the rest."""

    copy_text: str
    """A line for each bar, as COPY reads it: symbol, ts, open, high, low, close, volume, trades."""
    bars: int
    """How many lines that is."""
    latest: str
    """Start of the latest minute among them, ISO 8601 in UTC; empty if there is no bar."""
    refusals: list[Refusal]


PAYLOAD_LIMIT = 2_000
"""Characters of a refused input that are kept."""
