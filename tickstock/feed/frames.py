"""What the Massive (formerly Polygon.io) stocks feed sends: frames of text, sorted out. No I/O.

A frame is a JSON array of events of mixed types. Whatever comes in, `parse_frame` returns: what is
a bar becomes one, what cannot be one becomes a refusal with its reason, and neither costs its
neighbours. Only form is judged here; whether a bar's values make sense is the database's judgement,
for feed and files alike.
"""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard, TypeVar

import orjson

from tickstock.bars import PAYLOAD_LIMIT, Bar, Number, Refusal
from tickstock.feed.protocol import Status
from tickstock.ticks import Second, Trade

MINUTE_MS = 60_000
"""Milliseconds in the minute that an AM event spans."""
SECOND_MS = 1_000
"""Milliseconds in the second that an A event spans."""

SYMBOL_LIMIT = 64
"""Characters of a ticker. Longer ones are refused: PostgreSQL limits the size of an index entry."""

Start = TypeVar("Start", datetime, int)
Item = TypeVar("Item", Bar, Second)

_SOURCE = "feed"
_REST = "rest"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = frozenset((int, float))  # exact types: bool is an int to isinstance
_EXACT_FLOAT = 2.0**53
_LATEST_MS = 253_402_300_800_000  # the year 10000: datetime ends before it
_LARGEST_SEQUENCE = 2**63  # exclusive
_LARGEST_COUNT = 2**31  # exclusive; a year of such minutes still has a sum
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.0+|(\.[0-9]{1,18}))?")


class Frame(NamedTuple):
    """One frame, sorted out. `ignored` counts sound events of types not consumed here (Q, LULD, …)."""

    received_at: datetime
    """When the frame came off the socket, UTC."""
    bars: list[Bar]
    seconds: list[Second]
    trades: list[Trade]
    statuses: list[Status]
    refusals: list[Refusal]
    ignored: int
    broken: tuple[tuple[str, datetime], ...] = ()
    """Symbols and minutes of which something came that was refused, as far as it tells them."""

    @property
    def has_data(self) -> bool:
        """Whether there is anything in it besides statuses."""
        return bool(self.bars or self.trades or self.seconds or self.refusals or self.ignored)


def parse_frame(frame: bytes | str, received_at: datetime) -> Frame:
    """Sort out one frame. Never raises, whatever the frame holds.

    `received_at` is carried along, it decides nothing.
    """
    try:
        events = loads(frame)
    except ValueError as error:
        return _garbage(frame, received_at, f"the frame is not JSON: {error}")
    if type(events) is dict:
        events = [events]
    elif type(events) is not list:
        return _garbage(frame, received_at, "the frame is neither a JSON array nor an object")
    bars: list[Bar] = []
    seconds: list[Second] = []
    trades: list[Trade] = []
    others: list[Any] = []
    for event in events:
        kind = event.get("ev") if type(event) is dict else None
        if kind == "AM":
            bar = _aggregate(event, MINUTE_MS, _minute, Bar, (None,))
            others.append(event) if bar is None else bars.append(bar)
        elif kind == "T":
            trade = _trade(event)
            others.append(event) if trade is None else trades.append(trade)
        elif kind == "A":
            second = _aggregate(event, SECOND_MS, _second, Second)
            others.append(event) if second is None else seconds.append(second)
        else:
            others.append(event)
    rest = _sort_out(others) if others else ([], [], 0)
    return Frame(received_at, bars, seconds, trades, *rest)


def loads(text: bytes | str) -> Any:
    """What this JSON says; a NaN, an infinity or a broken character in it comes out as text.

    Such a value costs its event or row, not the others. Raises ValueError for what is not JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError as error:
        try:
            return _salvage(text)
        except (ValueError, RecursionError):
            raise error from None


def bar_of_row(symbol: str, row: Any) -> Bar | Refusal:
    """The bar of a row of REST's minute aggregates, or why it is none. Never raises.

    A row has the fields of an AM event, but its start in `t`, in ms, and the number of trades in `n`.
    """
    if type(row) is not dict:
        return Refusal(_REST, "not a row: no object", _text(row, PAYLOAD_LIMIT))
    event = {**row, "sym": symbol, "s": row.get("t"), "e": None}
    bar, trades = _aggregate(event, MINUTE_MS, _minute, Bar, (None,)), row.get("n")
    if bar is None:
        reason = _defect(event, MINUTE_MS, start_name="t")
    elif trades is None:
        return bar
    elif type(trades) in _NUMBERS and 0 <= trades < _LARGEST_COUNT and trades % 1 == 0:
        return bar._replace(trades=int(trades))
    else:
        reason = f"n is no number of trades: {_text(trades, 80)}"
    return Refusal(_REST, f"{symbol}: {reason}", _text(row, PAYLOAD_LIMIT))


def _aggregate(
    event: dict[str, Any],
    span: int,
    start_of: Callable[[int], Start | None],
    kind: type[Item],
    rest: tuple[None, ...] = (),
) -> Item | None:
    """What a sound AM or A event holds, else None. The hot path: `_defect` says what was wrong."""
    try:
        symbol, start = _SYMBOLS[event["sym"]], event["s"]
        opened, high, low, close = event["o"], event["h"], event["l"], event["c"]
        volume, vwap, end = event["v"], event.get("vw"), event.get("e")
        if not (
            type(start) is int
            and (end is None or end - start == span)
            and type(opened) in _NUMBERS
            and type(high) in _NUMBERS
            and type(low) in _NUMBERS
            and type(close) in _NUMBERS
            and type(volume) in _NUMBERS
            and (vwap is None or type(vwap) in _NUMBERS)
        ):
            return None
        begin = start_of(start)
        if begin is None:
            return None
        if type(volume) is float or "dv" in event:
            volume = _shares(volume, event.get("dv"))
        # As Bar(...) and Second(...) do it, in half the time; `rest`: what no event tells.
        return _new(kind, (symbol, begin, opened, high, low, close, volume, vwap, *rest))
    except (KeyError, TypeError):
        return None


def _trade(event: dict[str, Any]) -> Trade | None:
    """The trade of a sound T event, else None. The hottest path; `_trade_defect` says what is wrong.

    What no bar needs is not looked at: a strange exchange code costs nobody a trade.
    """
    try:
        symbol, at, sequence = _SYMBOLS[event["sym"]], event["t"], event["q"]
        price, size, codes = event["p"], event["s"], event.get("c")
        conditions = _CONDITIONS[tuple(codes)] if codes else ()
        if not (
            type(at) is int
            and 0 <= at < _LATEST_MS
            and type(sequence) is int
            and 0 <= sequence < _LARGEST_SEQUENCE
            and type(price) in _NUMBERS
            and price > 0
            and type(size) in _NUMBERS
            and size >= 0
        ):
            return None
        if type(size) is float or "ds" in event:
            size = _shares(size, event.get("ds"))
        # As Trade(...) does it, in half the time.
        return _new(Trade, (symbol, at, sequence, price, size, conditions, event))
    except (KeyError, TypeError):
        return None


_new = tuple.__new__


class _Symbols(dict[Any, str]):
    """Tickers that have been found to be some; TypeError for what is none. Each is seen once."""

    def __missing__(self, symbol: Any) -> str:
        if not is_ticker(symbol):
            raise TypeError("not a ticker")
        if len(self) >= _REMEMBERED:
            self.clear()  # garbage must not fill the memory
        self[symbol] = symbol
        return str(symbol)


class _Conditions(dict[tuple[Any, ...], tuple[int, ...]]):
    """Condition codes as whole numbers; TypeError for what is none. Each combination is seen once."""

    def __missing__(self, codes: tuple[Any, ...]) -> tuple[int, ...]:
        if not all(
            type(code) in _NUMBERS and code % 1 == 0 and 0 <= code < 1_000 for code in codes
        ):
            raise TypeError("not condition codes")
        if len(self) >= _REMEMBERED:
            self.clear()
        self[codes] = found = tuple(map(int, codes))
        return found


_REMEMBERED = 100_000
_SYMBOLS = _Symbols()
_CONDITIONS = _Conditions()


def _second(start: int) -> int | None:
    """`start`, ms after the epoch; None if no second of the calendar begins there."""
    return start if start % SECOND_MS == 0 and 0 <= start < _LATEST_MS else None


@lru_cache(maxsize=4096)
def _minute(start: int) -> datetime | None:
    """The minute that begins `start` ms after the epoch; None if no minute begins there."""
    if start % MINUTE_MS:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=start)
    except OverflowError:
        return None


def _shares(volume: int | float, exact: Any) -> Number:
    """`exact` (the feed's `dv`, `ds`) if it is a plain decimal, else `volume`; whole ones as int."""
    if type(exact) is str:
        match = _DECIMAL.fullmatch(exact)
        if match is not None:
            return int(exact.partition(".")[0]) if match[1] is None else Decimal(exact)
    if type(volume) is float and volume.is_integer() and abs(volume) <= _EXACT_FLOAT:
        return int(volume)
    return volume


def _sort_out(
    events: list[Any],
) -> tuple[list[Status], list[Refusal], int, tuple[tuple[str, datetime], ...]]:
    """What is in a frame after its trades, of events that are no bars."""
    statuses: list[Status] = []
    refusals: list[Refusal] = []
    broken: list[tuple[str, datetime]] = []
    ignored = 0
    for event in events:
        kind = event.get("ev") if type(event) is dict else None
        if type(kind) is str and kind in _DEFECTS:
            refusals.append(_refusal(_DEFECTS[kind](event), event))
            if meant := _minute_meant(event):
                broken.append(meant)
        elif kind == "status":
            status, message = event.get("status"), event.get("message", "")
            if type(status) is str and type(message) is str:
                statuses.append(Status(status, message))
            else:
                refusals.append(_refusal("status event without a text in status or message", event))
        elif type(kind) is str:
            ignored += 1
        else:
            refusals.append(_refusal("not an event: no text in ev", event))
    return statuses, refusals, ignored, tuple(broken)


def _minute_meant(event: dict[str, Any]) -> tuple[str, datetime] | None:
    """Symbol and minute of a bar, second or trade that is none; None where it does not tell them."""
    symbol, at = event.get("sym"), event.get("t" if event["ev"] == "T" else "s")
    if not is_ticker(symbol) or type(at) is not int:
        return None
    minute = _minute(at - at % MINUTE_MS)
    return None if minute is None else (symbol, minute)


def _defect(event: dict[str, Any], span: int, start_name: str = "s") -> str:
    """Why `_aggregate` made nothing of this event: the first field that is wrong, in order."""
    missing = _missing(event, "sym", start_name, "o", "h", "l", "c", "v")
    if missing:
        return missing
    start, end = event[start_name], event.get("e")
    if type(start) is not int:
        return f"{start_name} is not a whole number of milliseconds: {_text(start, 80)}"
    for name in ("o", "h", "l", "c", "v", "vw"):
        value = event.get(name)
        if type(value) not in _NUMBERS and not (name == "vw" and value is None):
            return f"{name} is not a finite number: {_text(value, 80)}"
    if end is not None and (type(end) not in _NUMBERS or end - start != span):
        return f"e is not {start_name} + {span}: {_text(end, 80)}"
    if start % span:
        return (
            f"{start_name} is not on a whole {'minute' if span == MINUTE_MS else 'second'}: {start}"
        )
    return f"{start_name} is out of the calendar: {start}"


def _trade_defect(event: dict[str, Any]) -> str:
    """Why `_trade` made nothing of this event: the first field that is wrong, in order."""
    missing = _missing(event, "sym", "t", "q", "p", "s")
    if missing:
        return missing
    for name, limit in (("t", _LATEST_MS), ("q", _LARGEST_SEQUENCE)):
        value = event[name]
        if type(value) is not int or not 0 <= value < limit:
            return f"{name} is no time or sequence number: {_text(value, 80)}"
    for name in ("p", "s"):
        value = event[name]
        if type(value) not in _NUMBERS or value < 0 or (name == "p" and value == 0):
            return f"{name} is not a possible number: {_text(value, 80)}"
    return f"c is no list of condition codes: {_text(event['c'], 80)}"


def _missing(event: dict[str, Any], *names: str) -> str | None:
    """The first field that is not there, or a symbol that is none; None when all is well."""
    for name in names:
        if name not in event:
            return f"{name} is missing"
    symbol = event["sym"]
    return None if is_ticker(symbol) else f"sym is not a ticker: {_text(symbol, 80)}"


def is_ticker(symbol: Any) -> TypeGuard[str]:
    """Whether this can be a symbol: printable text, not too long for an index."""
    return type(symbol) is str and 0 < len(symbol) <= SYMBOL_LIMIT and symbol.isprintable()


_DEFECTS: dict[Any, Callable[[dict[str, Any]], str]] = {
    "AM": lambda event: _defect(event, MINUTE_MS),
    "A": lambda event: _defect(event, SECOND_MS),
    "T": _trade_defect,
}


def _refusal(reason: str, event: Any) -> Refusal:
    return Refusal(_SOURCE, reason, _text(event, PAYLOAD_LIMIT))


def _garbage(frame: bytes | str, received_at: datetime, reason: str) -> Frame:
    head = frame[: 4 * PAYLOAD_LIMIT]  # a character is at most four bytes
    if isinstance(head, str):
        head = head.encode("utf-8", "backslashreplace")
    # What PostgreSQL's text cannot hold is spelled out: bytes that are not UTF-8, and NUL.
    text = bytes(head).decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    refusal = Refusal(_SOURCE, reason, _shorten(text, PAYLOAD_LIMIT))
    return Frame(received_at, [], [], [], [], [refusal], 0)


def _text(value: Any, limit: int) -> str:
    """`value` as ASCII JSON: no control character, nothing that a text column cannot hold."""
    try:
        return _shorten(json.dumps(value), limit)
    except RecursionError:
        return "(nested too deeply to show)"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _salvage(frame: bytes | str) -> Any:
    """Read what is not JSON only because of a NaN, an infinity or a broken character in an event.

    Such values come out as text, so that the event is refused and the rest of its frame is kept.
    Raises ValueError or RecursionError when there is nothing to save.
    """
    text = frame if isinstance(frame, str) else bytes(frame).decode("utf-8", "surrogateescape")
    return json.loads(text, parse_constant=str, parse_float=_float_or_text, parse_int=_int_or_text)


def _float_or_text(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _int_or_text(digits: str) -> int | float | str:
    return int(digits) if len(digits) <= 18 else _float_or_text(digits)
