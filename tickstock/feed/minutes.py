"""Minute bars made in memory, of the feed's trades (`T`) or of its seconds (`A`). No I/O, no clock.

Which trades count for what: `tickstock/feed/conditions.py`.

A trade belongs to the minute of its SIP time. Open and close are of the first and last trade by
(SIP time, sequence), in whatever order they arrived. Minutes without a price have no bar.

**Where bars of the three channels meet**, `AM` counts: it is what the vendor keeps. Seconds add up
to its open, high, low, close and volume; their vwap is made of rounded ones and may be off by
0.0001. Trades give all of it, and the number of trades, which `AM` does not tell. (Others have found
the vendor's minutes without the volume of code 22 and of the closing auction, which its own list
counts: such a bar made of trades is larger until the `AM` bar replaces it.)

**Event time.** The clock is the latest time of any event. A minute's bar is given once the clock has
passed its end by `grace`, and again whenever something late changed it. A time that leaps ahead of
the clock by more than the horizon is believed when the next event confirms it, so a single wrong one
does no harm.

**Memory.** What is older than the horizon is forgotten. At most horizon + 2 minutes are kept; in them
for each symbol with trades about 700 bytes and 8 for each of its trades, for each symbol with seconds
about 250 bytes and 56 for each second. 10,000 symbols with trades in every minute of 15: 120 MB and 8
bytes a trade.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import fsum, inf, isnan, nan
from operator import mul
from struct import Struct
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from tickstock.bars import Bar, Number
from tickstock.feed.conditions import ALL, EFFECTS
from tickstock.ticks import Second, Trade

MINUTE_MS = 60_000
HORIZON = 15
"""Minutes: bars have been seen to change for that long."""
GRACE_MS = 1_000
"""Milliseconds after a minute's end in which its last events still arrive as a rule."""

_REMEMBERED = 100_000
"""Prices that are worked out only once."""
_NEW_YORK = ZoneInfo("America/New_York")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def regular_hours(ts: datetime) -> bool:
    """Whether the minute from `ts` is between 09:30 and 16:00 of a weekday in New York.

    Holidays and half days need a calendar: give one to `TradeMinutes`.
    """
    local = ts.astimezone(_NEW_YORK)
    return local.weekday() < 5 and time(9, 30) <= local.time() < time(16)


class Taken(NamedTuple):
    """What has become ready since the last time."""

    bars: list[Bar]
    """By minute; a bar of a symbol and minute given before replaces that one."""
    owed: list[tuple[str, datetime]]
    """Symbols and minutes that changed after they were forgotten: REST knows them."""


class _Tick(Protocol):
    @property
    def symbol(self) -> str: ...
    @property
    def at(self) -> int: ...


Tick = TypeVar("Tick", bound=_Tick)


class _Forming(ABC, Generic[Tick]):
    """One symbol's minute."""

    __slots__ = ()

    @abstractmethod
    def add(self, tick: Tick, regular: bool) -> bool:
        """False if the tick was there already and changes nothing."""

    @abstractmethod
    def bar(self, symbol: str, ts: datetime) -> Bar | None:
        """None if nothing in it has set a price."""


class _Minute(Generic[Tick]):
    __slots__ = ("changed", "regular", "symbols", "ts")

    def __init__(self, ts: datetime, regular: bool) -> None:
        self.ts = ts
        self.regular = regular
        self.symbols: dict[str, _Forming[Tick]] = {}
        self.changed: dict[str, None] = {}


# Start and end of a minute in ms, and what `_Minute` has of it.
_Current: TypeAlias = tuple[int, int, dict[str, _Forming[Tick]], dict[str, None], bool]
_NO_MINUTE: tuple[int, int, dict[str, Any], dict[str, None], bool] = (0, 0, {}, {}, False)


class _Blind(NamedTuple):
    """Minutes, by their start in ms, of which something may be missing; `last` None: until now."""

    first: float
    last: float | None
    symbols: frozenset[str] | None


class _Minutes(ABC, Generic[Tick]):
    """What trades and seconds have in common: the clock, what is complete, what is forgotten."""

    _lasts = 0
    """Milliseconds from a tick's `at` to its end."""

    def __init__(
        self,
        *,
        horizon: int = HORIZON,
        grace_ms: int = GRACE_MS,
        regular: Callable[[datetime], bool] = regular_hours,
    ) -> None:
        self.clock: int | None = None
        """The latest event time, in milliseconds after the epoch; None before the first event."""
        self.repeated = 0
        """Events that came again and changed nothing."""
        self.implausible = 0
        """Events whose time nobody confirmed; they are left out."""
        self._horizon_ms = horizon * MINUTE_MS
        self._grace_ms = grace_ms
        self._regular = regular
        self._minutes: dict[int, _Minute[Tick]] = {}
        self._oldest = 0
        self._ready: list[Bar] = []
        self._owed: dict[tuple[str, int], None] = {}
        self._blind: list[_Blind] = []
        self._held: Tick | None = None
        self._current: _Current[Tick] = _NO_MINUTE

    @abstractmethod
    def _form(self) -> _Forming[Tick]: ...

    def add(self, ticks: Iterable[Tick]) -> None:
        """Take in what the feed sent, in the order of arrival."""
        start, end, symbols, changed, regular = self._current
        lasts, latest = self._lasts, self.clock or 0
        for tick in ticks:
            at = tick.at
            if not start <= at < end:
                # Rare: another minute than that of the last tick, or something to be careful about.
                self.clock = latest or None
                self._consider(tick)
                start, end, symbols, changed, regular = self._current
                latest = self.clock or 0
                continue
            if at + lasts > latest:
                latest = at + lasts
            symbol = tick.symbol
            forming = symbols.get(symbol)
            if forming is None:
                forming = symbols[symbol] = self._form()
            if forming.add(tick, regular):
                changed[symbol] = None
            else:
                self.repeated += 1
        self.clock = latest or None

    def interrupt(self, symbols: Iterable[str] | None = None, *, joined: bool = False) -> None:
        """Say that events are missing between the last one and the next: the connection was lost.

        No bar is given of a minute that this touches, since it could not be right: from the clock's
        minute to that of the next event, both included. `symbols`: only theirs are missing, as they
        were not subscribed; `joined`: nor were they in any minute before. Call it before the first event
        too, unless a minute begins with that.
        """
        first = -1.0
        if self.clock is not None and not joined:
            first = _start(self.clock - self._grace_ms)
        blind = _Blind(first, None, None if symbols is None else frozenset(symbols))
        if blind not in self._blind:
            self._blind.append(blind)
        self._current = _NO_MINUTE

    def take(self) -> Taken:
        """The bars of complete minutes that are new or have changed since they were last given."""
        if self.clock is None:
            return Taken([], [])
        return self._take(self.clock - MINUTE_MS - self._grace_ms)

    def finish(self) -> Taken:
        """The same for all minutes, because no more events will come: the end of a file."""
        if self._held is not None:
            held, self._held = self._held, None
            self._put(held)
        return self._take(max(self._minutes, default=0))

    def _consider(self, tick: Tick) -> None:
        """Hold back a tick that leaps ahead of the clock until the next one has spoken."""
        held, self._held = self._held, None
        if held is not None:
            if tick.at >= held.at - self._horizon_ms:
                self._put(held)
            else:
                self.implausible += 1
        if tick.at > (-1 if self.clock is None else self.clock + self._horizon_ms):
            self._held = tick
            self._current = _NO_MINUTE
        else:
            self._put(tick)

    def _put(self, tick: Tick) -> None:
        start = _start(tick.at)
        if self.clock is None or tick.at + self._lasts > self.clock:
            self._advance(tick.at)
        if start < self._oldest:
            self._owed[tick.symbol, start] = None
            return
        minute = self._minutes.get(start)
        if minute is None:
            ts = _time(start)
            minute = self._minutes[start] = _Minute(ts, self._regular(ts))
        if tick.symbol not in minute.symbols:
            minute.symbols[tick.symbol] = self._form()
        if minute.symbols[tick.symbol].add(tick, minute.regular):
            minute.changed[tick.symbol] = None
        else:
            self.repeated += 1
        if not self._is_open():
            # What follows is most likely of the same minute.
            end = start + MINUTE_MS
            self._current = (start, end, minute.symbols, minute.changed, minute.regular)

    def _advance(self, at: int) -> None:
        self.clock = at + self._lasts
        if self._is_open():
            last = _start(at)
            self._blind = [b if b.last is not None else b._replace(last=last) for b in self._blind]
        oldest = _start(at) - self._horizon_ms
        if oldest > self._oldest:
            self._oldest = oldest
            self._forget()

    def _is_open(self) -> bool:
        """Whether an interruption waits for the event that ends it."""
        return bool(self._blind) and self._blind[-1].last is None

    def _forget(self) -> None:
        for start in sorted(start for start in self._minutes if start < self._oldest):
            self._ready += self._changed_bars(start)
            del self._minutes[start]
        self._blind = [b for b in self._blind if b.last is None or b.last >= self._oldest]

    def _take(self, until: int) -> Taken:
        bars, self._ready = self._ready, []
        for start in sorted(self._minutes):
            if start <= until:
                bars += self._changed_bars(start)
        owed, self._owed = self._owed, {}
        return Taken(bars, [(symbol, _time(start)) for symbol, start in owed])

    def _changed_bars(self, start: int) -> list[Bar]:
        minute = self._minutes[start]
        bars = []
        for symbol in minute.changed:
            if not self._is_blind(symbol, start):
                bar = minute.symbols[symbol].bar(symbol, minute.ts)
                if bar is not None:
                    bars.append(bar)
        minute.changed.clear()
        return bars

    def _is_blind(self, symbol: str, start: int) -> bool:
        return any(
            blind.first <= start
            and (blind.last is None or start <= blind.last)
            and (blind.symbols is None or symbol in blind.symbols)
            for blind in self._blind
        )


class TradeMinutes(_Minutes[Trade]):
    """Minute bars made of trades. A trade that comes again, by its sequence, is counted once.

    `horizon`: minutes that are kept. `grace_ms`: milliseconds by which the clock must have passed a
    minute's end. `regular`: whether a minute (its start, UTC) lies in the regular session.
    """

    def _form(self) -> _Forming[Trade]:
        return _OfTrades()


class SecondMinutes(_Minutes[Second]):
    """Minute bars made of seconds, without the number of trades. A second that comes again replaces
    the earlier one. Arguments as for `TradeMinutes`; sessions don't matter.
    """

    _lasts = 1_000

    def _form(self) -> _Forming[Second]:
        return _OfSeconds()


class _OfTrades(_Forming[Trade]):
    __slots__ = (
        "close", "first_at", "first_sequence", "high", "last_at", "last_sequence", "low", "newest",
        "open", "rank", "sequences", "trades", "turnover", "volume",
    )  # fmt: skip

    def __init__(self) -> None:
        self.open: Number = 0
        self.close: Number = 0
        self.high: Number = -inf
        self.low: Number = inf
        self.rank = 2
        """The best rank of those seen; open and close are of that rank."""
        self.first_at = self.first_sequence = 0
        """Of the trade that gave the open; `last` of that which gave the close."""
        self.last_at = self.last_sequence = 0
        self.volume: int | Decimal = 0
        self.turnover: int | Decimal = 0
        """Sum of price x size, in units of 1e-8 of the currency."""
        self.trades = 0
        self.newest = -1
        self.sequences = array("q")
        """Of all trades in here, ascending: what tells a new trade from one that came again."""

    def add(self, trade: Trade, regular: bool) -> bool:
        _, at, sequence, price, size, conditions, _ = trade
        if sequence > self.newest:
            self.newest = sequence
            self.sequences.append(sequence)
        elif self._is_repeated(sequence):
            return False
        counts, rank = EFFECTS[regular][conditions] if conditions else ALL
        if counts:
            shares = size if type(size) is int else _decimal(size)
            self.volume += shares
            self.turnover += _UNITS[price] * shares
            self.trades += 1
        if rank < 2:
            if price > self.high:
                self.high = price
            if price < self.low:
                self.low = price
            if rank == self.rank and at > self.last_at:
                self.last_at, self.last_sequence, self.close = at, sequence, price
            elif rank <= self.rank:
                self._place(at, sequence, price, rank)
        return True

    def _place(self, at: int, sequence: int, price: Number, rank: int) -> None:
        """Open and close by a trade that is not simply the latest of its rank."""
        better = rank < self.rank
        self.rank = rank
        if better or (at, sequence) > (self.last_at, self.last_sequence):
            self.last_at, self.last_sequence, self.close = at, sequence, price
        if better or (at, sequence) < (self.first_at, self.first_sequence):
            self.first_at, self.first_sequence, self.open = at, sequence, price

    def _is_repeated(self, sequence: int) -> bool:
        place = bisect_left(self.sequences, sequence)
        if self.sequences[place] == sequence:
            return True
        self.sequences.insert(place, sequence)
        return False

    def bar(self, symbol: str, ts: datetime) -> Bar | None:
        if self.rank == 2:
            return None
        vwap = _ratio(self.turnover, self.volume) if self.volume else None
        return Bar(
            symbol, ts, self.open, self.high, self.low, self.close,
            _plain(self.volume), vwap, self.trades,
        )  # fmt: skip


_COLUMNS = 7  # start, open, high, low, close, volume, vwap (NaN: not told)
_pack = Struct(f"{_COLUMNS}d").pack


class _OfSeconds(_Forming[Second]):
    __slots__ = ("_newest", "_rows")

    def __init__(self) -> None:
        self._newest = -1
        self._rows = array("d")
        """A row for each second, in the order of arrival: 56 bytes, where a tuple takes 300."""

    def add(self, second: Second, regular: bool) -> bool:  # noqa: ARG002
        _, start, opened, high, low, close, volume, vwap = second
        # In half the time of array.extend().
        row = _pack(start, opened, high, low, close, volume, nan if vwap is None else vwap)
        if start <= self._newest:
            return self._replace(start, array("d", row))
        self._newest = start
        self._rows.frombytes(row)
        return True

    def _replace(self, start: int, row: "array[float]") -> bool:
        rows = self._rows
        for place in range(0, len(rows), _COLUMNS):
            if rows[place] == start:
                changes = rows[place : place + _COLUMNS].tobytes() != row.tobytes()
                rows[place : place + _COLUMNS] = row
                return changes
        rows.extend(row)
        return True

    def bar(self, symbol: str, ts: datetime) -> Bar | None:
        rows = self._rows
        starts = rows[::_COLUMNS]
        opens, highs, lows, closes, volumes, vwaps = (rows[n::_COLUMNS] for n in range(1, _COLUMNS))
        volume = _sum(volumes)
        turnover = fsum(map(mul, volumes, vwaps))
        vwap = round(turnover / float(volume), 4) if volume and not isnan(turnover) else None
        first, last = starts.index(min(starts)), starts.index(max(starts))
        return Bar(symbol, ts, opens[first], max(highs), min(lows), closes[last], volume, vwap)


def _sum(volumes: "array[float]") -> int | Decimal:
    """Exact, of numbers as the feed spelled them."""
    if all(map(float.is_integer, volumes)):
        return sum(map(int, volumes))
    return _plain(sum(map(_decimal, volumes), Decimal(0)))


def _start(at: int) -> int:
    return at - at % MINUTE_MS


@lru_cache(maxsize=256)
def _time(start: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=start)


def _ratio(turnover: int | Decimal, volume: int | Decimal) -> float:
    """The exact quotient, in the currency, to four decimals; a tie goes to the even one."""
    if type(turnover) is int and type(volume) is int:
        quotient, rest = divmod(turnover, volume * 10_000)
        above = 2 * rest - volume * 10_000
        return (quotient + (above > 0 or (above == 0 and quotient % 2 == 1))) / 10_000
    return float(round(Fraction(turnover) / Fraction(volume) / 100_000_000, 4))


class _Units(dict[Number, int | Decimal]):
    """Prices in units of 1e-8: whole numbers unless the feed sends more than eight decimals."""

    def __missing__(self, price: Number) -> int | Decimal:
        if len(self) >= _REMEMBERED:
            self.clear()
        units = _decimal(price) * 100_000_000
        self[price] = found = int(units) if units == units.to_integral_value() else units
        return found


_UNITS = _Units()


def _decimal(number: Number) -> Decimal:
    """A number as the feed spelled it: a float's shortest form."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def _plain(number: int | Decimal) -> int | Decimal:
    return int(number) if number == int(number) else number
