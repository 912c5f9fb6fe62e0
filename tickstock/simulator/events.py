"""Bars as the vendor's AM events, with what accumulates through a trading day; frames of events."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tickstock.bars import Bar, Number
from tickstock.simulator.market import NEW_YORK, REGULAR_OPENING, Minute

_MINUTE_MS = 60_000


class Event(NamedTuple):
    """One event: its fields, and in AM events the bar it carries (so without `trades`)."""

    fields: dict[str, Any]
    bar: Bar | None = None


class Frame(NamedTuple):
    """One WebSocket message, a JSON array as a rule, and what is in it (nothing in a status)."""

    payload: bytes
    bars: Sequence[Bar] = ()
    events: int = 0
    """Events of the market."""


def status(kind: str, message: str) -> dict[str, str]:
    """A status event, as every answer to a command is one."""
    return {"ev": "status", "status": kind, "message": message}


def plain(number: Number) -> int | float:
    """A Decimal as JSON spells it, an integer where it is one; other numbers as they are."""
    if not isinstance(number, Decimal):
        return number
    return int(number) if number == number.to_integral_value() else float(number)


def frames(events: Sequence[Event], size: int) -> Iterator[Frame]:
    """The events in as few messages of at most `size` events as they need."""
    for begin in range(0, len(events), size):
        chunk = events[begin : begin + size]
        # A frame at a time: orjson's cost is in the call and its buffer, not in the event.
        payload = orjson.dumps([event.fields for event in chunk])
        bars = [event.bar for event in chunk if event.bar is not None]
        yield Frame(payload, bars, len(chunk))


class Encoder:
    """Makes events of a market's bars, minute after minute.

    `av` (volume of the day so far) and `a` (its vwap) begin anew with each New York day. `op` is
    the open of the day's first regular bar; before 09:30 there is none yet, and the open of the
    day's first bar stands in. What a bar does not tell is absent from its event: a replayed flat
    file has no vwap (`vw`, `a`) and perhaps no count of trades (`z`).
    """

    def __init__(self) -> None:
        self._day: date | None = None
        self._symbols: dict[str, _DaySoFar] = {}

    def encode(self, minute: Minute) -> list[Event]:
        """One event a bar, in the order of the bars."""
        local = minute.ts.astimezone(NEW_YORK)
        if local.date() != self._day:
            self._day = local.date()
            self._symbols.clear()
        regular = local.time() >= REGULAR_OPENING
        return [self._event(bar, regular) for bar in minute.bars]

    def _event(self, bar: Bar, regular: bool) -> Event:
        so_far = self._symbols.get(bar.symbol)
        if so_far is None:
            so_far = self._symbols[bar.symbol] = _DaySoFar(plain(bar.open))
        vwap = None if bar.vwap is None else plain(bar.vwap)
        sent = Bar(
            bar.symbol,
            bar.ts,
            plain(bar.open),
            plain(bar.high),
            plain(bar.low),
            plain(bar.close),
            volume := plain(bar.volume),
            vwap,
        )
        so_far.add(sent.open, volume, vwap, regular)
        start = milliseconds(bar.ts)
        fields: dict[str, Any] = {
            "ev": "AM",
            "sym": bar.symbol,
            "v": volume,
            "av": so_far.volume,
            "op": so_far.official_open,
            "vw": vwap,
            "o": sent.open,
            "c": sent.close,
            "h": sent.high,
            "l": sent.low,
            "a": so_far.vwap(),
            "z": round(volume / bar.trades) if bar.trades else None,
            "s": start,
            "e": start + _MINUTE_MS,
        }
        if vwap is None or not bar.trades or not so_far.volume:
            fields = {name: value for name, value in fields.items() if value is not None}
        return Event(fields, sent)


class _DaySoFar:
    """One symbol's running figures of a trading day."""

    __slots__ = ("_has_opened", "_turnover", "official_open", "volume")

    def __init__(self, first_open: float) -> None:
        self.official_open = first_open
        self.volume: int | float = 0
        self._has_opened = False
        self._turnover: float | None = 0.0

    def add(self, first_price: Number, volume: float, vwap: float | None, regular: bool) -> None:
        if regular and not self._has_opened:
            self._has_opened = True
            self.official_open = plain(first_price)
        self.volume += volume
        if isinstance(volume, float):
            # Their sum must not grow a tail of digits.
            self.volume = round(self.volume, 6)
        if vwap is None:
            self._turnover = None
        elif self._turnover is not None:
            self._turnover += vwap * volume

    def vwap(self) -> float | None:
        """None once a bar without a vwap, or nothing but empty ones, was among the day's."""
        if self._turnover is None or not self.volume:
            return None
        return round(self._turnover / self.volume, 4)


@lru_cache(maxsize=1_024)
def milliseconds(ts: datetime) -> int:
    """After the epoch, as the feed tells the time."""
    return int(ts.astimezone(UTC).timestamp()) * 1_000
