"""The Massive (formerly Polygon.io) stocks feed as text: frames in, messages out. No I/O.

A frame is a JSON array of events of mixed types. Whatever comes in, `parse_frame` returns: what is
a bar becomes one, what cannot be one becomes a refusal with its reason, and neither costs its
neighbours. Only form is judged here; whether a bar's values make sense is the database's judgement,
for feed and files alike.
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tickstock.bars import PAYLOAD_LIMIT, Bar, Number, Refusal
from tickstock.errors import TickstockError

MINUTE_MS = 60_000
"""Milliseconds in the minute that an AM event spans."""

SYMBOL_LIMIT = 64
"""Characters of a ticker. Longer ones are refused: PostgreSQL limits the size of an index entry."""

MESSAGE_LIMIT = 8_000
"""Characters of topics in one subscribe message."""

_SOURCE = "feed"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = frozenset((int, float))  # exact types: bool is an int to isinstance
_EXACT_FLOAT = 2.0**53
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.0+|(\.[0-9]{1,18}))?")


class Status(NamedTuple):
    """What the feed says about the connection, as opposed to the market."""

    status: str
    message: str


class StatusKind(Enum):
    """What a status means to a client."""

    CONNECTED = auto()
    AUTH_SUCCESS = auto()
    SUBSCRIBED = auto()
    """A topic was subscribed or unsubscribed. Unknown tickers are acknowledged too."""
    AUTH_FAILED = auto()
    NO_ACCESS = auto()
    """The key is known but its plan does not include the WebSocket feed."""
    AUTH_TIMEOUT = auto()
    NOT_AUTHORIZED = auto()
    """The plan does not include a topic that was asked for."""
    MAX_CONNECTIONS = auto()
    OTHER = auto()


class Frame(NamedTuple):
    """One frame, sorted out. `ignored` counts sound events of types not consumed here (T, A, …)."""

    received_at: datetime
    """When the frame came off the socket, UTC."""
    bars: list[Bar]
    statuses: list[Status]
    refusals: list[Refusal]
    ignored: int


def parse_frame(frame: bytes | str, received_at: datetime) -> Frame:
    """Sort out one frame. Never raises, whatever the frame holds.

    `received_at` is carried along, it decides nothing.
    """
    try:
        events = orjson.loads(frame)
    except ValueError as error:
        try:
            events = _salvage(frame)
        except (ValueError, RecursionError):
            return _garbage(frame, received_at, f"the frame is not JSON: {error}")
    if type(events) is dict:
        events = [events]
    elif type(events) is not list:
        return _garbage(frame, received_at, "the frame is neither a JSON array nor an object")
    bars: list[Bar] = []
    others: list[Any] = []
    for event in events:
        bar = _bar(event)
        if bar is not None:
            bars.append(bar)
        else:
            others.append(event)
    if not others:
        return Frame(received_at, bars, [], [], 0)
    return Frame(received_at, bars, *_sort_out(others))


def _bar(event: Any) -> Bar | None:
    """The bar of a sound AM event, else None. The hot path: `_defect` finds out what was wrong."""
    try:
        if event["ev"] != "AM":
            return None
        symbol, start = event["sym"], event["s"]
        opened, high, low, close = event["o"], event["h"], event["l"], event["c"]
        volume, vwap, end = event["v"], event.get("vw"), event.get("e")
        if not (
            type(symbol) is str
            and 0 < len(symbol) <= SYMBOL_LIMIT
            and symbol.isprintable()
            and type(start) is int
            and (end is None or end - start == MINUTE_MS)
            and type(opened) in _NUMBERS
            and type(high) in _NUMBERS
            and type(low) in _NUMBERS
            and type(close) in _NUMBERS
            and type(volume) in _NUMBERS
            and (vwap is None or type(vwap) in _NUMBERS)
        ):
            return None
        ts = _minute(start)
        if ts is None:
            return None
        return Bar(
            symbol, ts, opened, high, low, close, _volume(volume, event.get("dv")), vwap, None
        )
    except (KeyError, TypeError):
        return None


@lru_cache(maxsize=4096)
def _minute(start: int) -> datetime | None:
    """The minute that begins `start` ms after the epoch; None if no minute begins there."""
    if start % MINUTE_MS:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=start)
    except OverflowError:
        return None


def _volume(volume: int | float, exact: Any) -> Number:
    """`exact` (the feed's `dv`) if it is a plain decimal, else `volume`; whole numbers as int."""
    if type(exact) is str:
        match = _DECIMAL.fullmatch(exact)
        if match is not None:
            return int(exact.partition(".")[0]) if match[1] is None else Decimal(exact)
    if type(volume) is float and volume.is_integer() and abs(volume) <= _EXACT_FLOAT:
        return int(volume)
    return volume


def _sort_out(events: list[Any]) -> tuple[list[Status], list[Refusal], int]:
    """Statuses, refusals and the number of other sound events among events that are no bars."""
    statuses: list[Status] = []
    refusals: list[Refusal] = []
    ignored = 0
    for event in events:
        kind = event.get("ev") if type(event) is dict else None
        if kind == "AM":
            refusals.append(_refusal(_defect(event), event))
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
    return statuses, refusals, ignored


def _defect(event: dict[str, Any]) -> str:
    """Why `_bar` made nothing of this AM event: the first field that is wrong, in order."""
    for name in ("sym", "s", "o", "h", "l", "c", "v"):
        if name not in event:
            return f"{name} is missing"
    symbol, start, end = event["sym"], event["s"], event.get("e")
    if type(symbol) is not str or not 0 < len(symbol) <= SYMBOL_LIMIT or not symbol.isprintable():
        return f"sym is not a ticker: {_text(symbol, 80)}"
    if type(start) is not int:
        return f"s is not a whole number of milliseconds: {_text(start, 80)}"
    for name in ("o", "h", "l", "c", "v", "vw"):
        value = event.get(name)
        if type(value) not in _NUMBERS and not (name == "vw" and value is None):
            return f"{name} is not a finite number: {_text(value, 80)}"
    if end is not None and (type(end) not in _NUMBERS or end - start != MINUTE_MS):
        return f"e is not s + {MINUTE_MS}: {_text(end, 80)}"
    if start % MINUTE_MS:
        return f"s is not on a whole minute: {start}"
    return f"s is out of the calendar: {start}"


def _refusal(reason: str, event: Any) -> Refusal:
    return Refusal(_SOURCE, reason, _text(event, PAYLOAD_LIMIT))


def _garbage(frame: bytes | str, received_at: datetime, reason: str) -> Frame:
    head = frame[: 4 * PAYLOAD_LIMIT]  # a character is at most four bytes
    if isinstance(head, str):
        head = head.encode("utf-8", "backslashreplace")
    # What PostgreSQL's text cannot hold is spelled out: bytes that are not UTF-8, and NUL.
    text = bytes(head).decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return Frame(received_at, [], [], [Refusal(_SOURCE, reason, _shorten(text, PAYLOAD_LIMIT))], 0)


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


# First match wins: the status, and a part of the message in lower case. Older servers report by
# `success` and `error` what newer ones give a status of its own.
_KINDS = (
    ("connected", "", StatusKind.CONNECTED),
    ("auth_success", "", StatusKind.AUTH_SUCCESS),
    ("success", "subscribed", StatusKind.SUBSCRIBED),
    ("success", "authenticated", StatusKind.AUTH_SUCCESS),
    ("success", "", StatusKind.SUBSCRIBED),
    ("auth_failed", "plan", StatusKind.NO_ACCESS),
    ("auth_failed", "access", StatusKind.NO_ACCESS),
    ("auth_failed", "", StatusKind.AUTH_FAILED),
    ("auth_timeout", "", StatusKind.AUTH_TIMEOUT),
    ("max_connections", "", StatusKind.MAX_CONNECTIONS),
    ("not_authorized", "", StatusKind.NOT_AUTHORIZED),
    ("error", "not authorized", StatusKind.NOT_AUTHORIZED),
    ("error", "authentication failed", StatusKind.AUTH_FAILED),
    ("error", "maximum number of", StatusKind.MAX_CONNECTIONS),
)


def classify(status: Status) -> StatusKind:
    """What a status means; OTHER where it means nothing to this client."""
    message = status.message.lower()
    for name, part, kind in _KINDS:
        if status.status == name and part in message:
            return kind
    return StatusKind.OTHER


def topics(symbols: Iterable[str], channel: str = "AM") -> list[str]:
    """The topics that stand for `symbols` on a channel, each once, in order; `*` stands for all.

    Raises TickstockError for a symbol that cannot be part of a topic.
    """
    names = list(dict.fromkeys(symbols))
    for name in names:
        if not name or "," in name or " " in name or not name.isprintable():
            raise TickstockError(
                f"{_text(name, 80)} is not a symbol: give tickers such as AAPL, or '*' for all."
            )
    return [f"{channel}.*"] if "*" in names else [f"{channel}.{name}" for name in names]


def auth_message(key: str) -> str:
    """The message that authenticates. It holds the key: never log it."""
    return _message("auth", key)


def subscribe_messages(wanted: Iterable[str], limit: int = MESSAGE_LIMIT) -> list[str]:
    """Messages that subscribe to the topics, each with at most `limit` characters of topics."""
    return [_message("subscribe", params) for params in _joined(wanted, limit)]


def unsubscribe_messages(unwanted: Iterable[str], limit: int = MESSAGE_LIMIT) -> list[str]:
    """Messages that unsubscribe from the topics, each with at most `limit` characters of topics."""
    return [_message("unsubscribe", params) for params in _joined(unwanted, limit)]


def _joined(parts: Iterable[str], limit: int) -> list[str]:
    """Comma-separated lists of at most `limit` characters; a part longer than that stands alone."""
    lists: list[list[str]] = []
    room = -1
    for part in parts:
        if not lists or len(part) + 1 > room:
            lists.append([])
            room = limit + 1
        lists[-1].append(part)
        room -= len(part) + 1
    return [",".join(each) for each in lists]


def _message(action: str, params: str) -> str:
    return json.dumps({"action": action, "params": params})
