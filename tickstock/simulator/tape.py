"""The trades that make a bar: a market of bars gets a tape, and a bar for each second.

What `tickstock.feed.minutes` makes of the trades or the seconds is the bar they were made of, by
the vendor's rule of conditions: among them are trades that set no price, reports that are no trade,
and Form T outside the regular session. The same bar, seed and hour always give the same tape.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import ceil
from random import Random
from typing import Any, NamedTuple

from tickstock.bars import Bar, Number
from tickstock.simulator.events import Event, milliseconds

SECOND_MS = 1_000
MINUTE_MS = 60_000

# Condition codes: for trades that set all prices, only high and low, and none.
_PLAIN = ((), (), (), (14,), (14, 41), (9,))
_SOFT = ((10,), (22,), (32,), (5,))
_SILENT = ((37,), (37,), (14, 37, 41), (2,), (53, 41), (52,), (21,))
_FORM_T = 12
_OFFICIAL_OPEN, _OFFICIAL_CLOSE = 16, 15

_VENUES = ((4, None), (4, None), (11, None), (12, None), (19, None), (4, 201), (4, 202))
"""Exchange and trade reporting facility."""


class Print(NamedTuple):
    """One line of the tape. Prices and sizes are whole numbers, in the units of its `_Scale`."""

    offset: int
    """Milliseconds after the minute's start."""
    price: int
    size: int
    conditions: tuple[int, ...]
    rank: int
    """0: sets all prices. 1: high and low only. 2: none."""
    counts: bool = True
    """Whether it adds to the volume."""


class _Scale(NamedTuple):
    """Whole numbers for a bar's prices and shares."""

    price_digits: int
    size_digits: int

    def price(self, units: int) -> int | float:
        return _number(units, self.price_digits)

    def size(self, units: int) -> int | float:
        return _number(units, self.size_digits)


class _Units(NamedTuple):
    """A bar in whole numbers."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    vwap: Fraction | None
    """In price units."""


class Tape:
    """The trades and seconds of one minute of a market, made for the symbols that are asked for."""

    def __init__(
        self, bars: Sequence[Bar], events: Sequence[Event], *, seed: int, regular: bool
    ) -> None:
        """`bars` as the market has them, `events`: the AM events of the same bars."""
        self._bars, self._events = bars, events
        self._seed = seed
        self._regular = regular
        self._prints: dict[str, tuple[_Scale, list[Print]]] = {}
        self._made: dict[tuple[str, str], list[tuple[int, Event]]] = {}

    @cached_property
    def _minutes(self) -> dict[str, tuple[Bar, dict[str, Any]]]:
        pairs = zip(self._bars, self._events, strict=True)
        return {bar.symbol: (bar, event.fields) for bar, event in pairs}

    def ticks(
        self, after: int, until: int, wanted: Mapping[str, Collection[str] | None]
    ) -> list[Event]:
        """Events of the wanted channels (T, A) and symbols (None: all) in the order of time.

        Of the time from `after` up to and excluding `until`, in milliseconds of the minute; a second
        happens when it is over.
        """
        found = [
            each
            for channel, names in wanted.items()
            for symbol in sorted(self._minutes if names is None else self._minutes.keys() & names)
            for each in self._of(channel, symbol)
            if after <= each[0] < until
        ]
        found.sort(key=lambda each: each[0])
        return [event for _, event in found]

    def _of(self, channel: str, symbol: str) -> list[tuple[int, Event]]:
        """A symbol's events with the moments when they are sent."""
        made = self._made.get((channel, symbol))
        if made is None:
            bar, minute = self._minutes[symbol]
            if symbol not in self._prints:
                self._prints[symbol] = prints_of(bar, seed=self._seed, regular=self._regular)
            scale, prints = self._prints[symbol]
            start = milliseconds(bar.ts)
            made = list(
                _trades(symbol, start, scale, prints)
                if channel == "T"
                else _seconds(bar, start, scale, prints, minute)
            )
            self._made[channel, symbol] = made
        return made


def prints_of(bar: Bar, *, seed: int = 0, regular: bool) -> tuple[_Scale, list[Print]]:
    """The tape of a bar, in the order of time; nothing for a bar without volume."""
    if not bar.volume:
        return _Scale(0, 0), []
    chance = Random(f"{seed} {bar.symbol} {bar.ts:%Y%m%d%H%M}")  # noqa: S311
    scale, units = _whole(bar, chance)
    tape = _Maker(units, chance).prints()
    if not regular:
        tape = [p._replace(conditions=(*p.conditions, _FORM_T)) for p in tape]
    clock = (bar.ts.minute, regular)
    if clock in ((30, True), (0, False)):
        # At 09:30 and 16:00 (and at other times, where it does no harm): no trade, no price.
        code = _OFFICIAL_OPEN if regular else _OFFICIAL_CLOSE
        tape.append(Print(int(chance.random() * MINUTE_MS), 2 * units.high, 100, (code,), 2, False))
    return scale, sorted(tape, key=lambda p: p.offset)


class _Maker:
    """Finds trades with the open, high, low, close, volume and vwap of a bar."""

    def __init__(self, bar: _Units, chance: Random) -> None:
        self._bar = bar
        self._chance = chance
        self._reach = 2 * (bar.high - bar.low) + 1
        """How far from the middle trades that set no price may lie."""

    def prints(self) -> list[Print]:
        bar = self._bar
        fixed = self._fixed()
        spare = bar.trades - len(fixed)
        free = bar.volume - len(fixed)
        sizes = [1] * len(fixed)
        others: list[tuple[int, int, int]] = []
        if spare == 0:
            sizes[0] += free
        else:
            others = self._free(spare, free, self._free_turnover(spare, free, sum(fixed)))
        plain = [(price, size) for price, size, rank in others if rank == 0]
        inner = [*zip(fixed[2:], sizes[2:], strict=True), *plain]
        self._chance.shuffle(inner)
        ends = list(zip(fixed, sizes, strict=True))
        ranked = [ends[0], *inner, *ends[1:2]]
        offsets = sorted(int(self._chance.random() * MINUTE_MS) for _ in ranked)
        found = [
            Print(offset, price, size, self._pick(_PLAIN), 0)
            for offset, (price, size) in zip(offsets, ranked, strict=True)
        ]
        # Beside one that sets prices, so that no second has volume without a price.
        for price, size, rank in others:
            if rank:
                second = self._pick(offsets) // SECOND_MS * SECOND_MS
                offset = second + int(self._chance.random() * SECOND_MS)
                codes = self._pick(_SOFT if rank == 1 else _SILENT)
                found.append(Print(offset, price, size, codes, rank))
        return found

    def _fixed(self) -> list[int]:
        """Prices of the trades that there must be: the first, the last, the highest, the lowest."""
        bar = self._bar
        prices = [bar.open]
        if bar.trades > 1:
            prices.append(bar.close)
        if bar.high > max(prices):
            prices.append(bar.high)
        if bar.low < min(prices):
            prices.append(bar.low)
        return prices

    def _free_turnover(self, spare: int, free: int, fixed_turnover: int) -> int:
        """What the other trades must turn over for the bar to have its vwap, as far as possible."""
        bar = self._bar
        if bar.vwap is None:
            share = self._chance.random()
            return round(free * (bar.low + share * (bar.high - bar.low)))
        exact = bar.vwap * bar.volume - fixed_turnover
        step = free if spare == 1 else 1  # one trade has one price
        near = round(exact / step) * step
        close = sorted((near, near - step, near + step), key=lambda turnover: abs(turnover - exact))
        return min(max(close[0], free * bar.low), free * bar.high)

    def _free(self, count: int, shares: int, turnover: int) -> list[tuple[int, int, int]]:
        """Price, size and rank of so many trades with so many shares and that turnover in all."""
        price, dearer = divmod(turnover, shares)
        if not dearer or count == 1:
            return self._spread(price, count, shares)
        upper = min(max(1, round(count * dearer / shares)), count - 1)
        return [
            *self._spread(price + 1, upper, dearer),
            *self._spread(price, count - upper, shares - dearer),
        ]

    def _spread(self, middle: int, count: int, shares: int) -> list[tuple[int, int, int]]:
        """Trades around a price: pairs of one size, as far above as below, and the rest on it."""
        found: list[tuple[int, int, int]] = []
        near = min(middle - self._bar.low, self._bar.high - middle)
        while count > 2:
            size = 1 + int(self._chance.random() * (shares // count))
            lot = self._chance.random()
            rank = 2 if lot < 0.3 else 1 if lot < 0.4 else 0
            reach = min(self._reach, middle - 1) if rank == 2 else near
            distance = int(self._chance.random() * (reach + 1))
            found += [(middle - distance, size, rank), (middle + distance, size, rank)]
            count, shares = count - 2, shares - 2 * size
        if count == 2:
            size = 1 + int(self._chance.random() * (shares - 1))
            found.append((middle, size, 0))
            shares -= size
        found.append((middle, shares, 0))
        return found

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[int(self._chance.random() * len(options))]


def _whole(bar: Bar, chance: Random) -> tuple[_Scale, _Units]:
    """A bar in whole numbers, with as many trades as it tells, or needs."""
    prices = [_decimal(price) for price in bar[2:6]]
    price_digits = max(2, *(_digits(price) for price in prices))
    opened, high, low, close = (_units(price, price_digits) for price in prices)
    needed = 1 + (not opened == close == high == low)
    needed += (high > max(opened, close)) + (low < min(opened, close))
    volume = _decimal(bar.volume)
    size_digits = max(0, _digits(volume))
    while _units(volume, size_digits) < needed:
        size_digits += 1  # a bar of one share with a range: its trades are of parts of a share
    shares = _units(volume, size_digits)
    told = bar.trades or needed + int(chance.random() * 20)
    vwap = None if bar.vwap is None else Fraction(_decimal(bar.vwap)) * 10**price_digits
    units = _Units(opened, high, low, close, shares, min(max(told, needed), shares), vwap)
    return _Scale(price_digits, size_digits), units


def _trades(
    symbol: str, start: int, scale: _Scale, prints: Sequence[Print]
) -> Iterator[tuple[int, Event]]:
    # Increasing through the day, with holes, and never twice the same.
    sequence = start // MINUTE_MS % 1_440 * 1_000_000
    tape = 1 + sum(map(ord, symbol)) % 3
    for number, each in enumerate(prints):
        sequence += 1 + (number * 7 + each.size) % 3
        exchange, facility = _VENUES[(sequence + each.price) % len(_VENUES)]
        fields: dict[str, Any] = {
            "ev": "T",
            "sym": symbol,
            "i": str(sequence),
            "x": exchange,
            "p": scale.price(each.price),
            "s": scale.size(each.size),
            "t": start + each.offset,
            "q": sequence,
            "z": tape,
        }
        if each.conditions:
            fields["c"] = each.conditions
        if facility:
            fields["trfi"], fields["trft"] = facility, start + each.offset
        yield each.offset, Event(fields)


def _seconds(
    bar: Bar, start: int, scale: _Scale, prints: Sequence[Print], minute: dict[str, Any]
) -> Iterator[tuple[int, Event]]:
    """A events; what accumulates through the day comes from the minute's AM event."""
    by_second: dict[int, list[Print]] = {}
    for each in prints:
        if each.counts or each.rank < 2:
            by_second.setdefault(each.offset // SECOND_MS, []).append(each)
    passed = turnover = 0
    so_far = _Day(minute)
    for second, some in sorted(by_second.items()):
        best = min(each.rank for each in some)
        ends = [each.price for each in some if each.rank == best]
        extremes = [each.price for each in some if each.rank < 2]
        volume = sum(each.size for each in some)
        worth = sum(each.price * each.size for each in some)
        passed, turnover = passed + volume, turnover + worth
        begin = start + second * SECOND_MS
        fields = {
            "ev": "A",
            "sym": bar.symbol,
            "v": scale.size(volume),
            "av": so_far.volume(scale.size(passed)),
            "op": minute["op"],
            "vw": _vwap(worth, volume, scale),
            "o": scale.price(ends[0]),
            "c": scale.price(ends[-1]),
            "h": scale.price(max(extremes)),
            "l": scale.price(min(extremes)),
            "a": so_far.vwap(_vwap(turnover, passed, scale), scale.size(passed)),
            "z": ceil(scale.size(volume) / len(some)),
            "s": begin,
            "e": begin + SECOND_MS,
        }
        if fields["a"] is None:
            del fields["a"]
        # The last millisecond: minutes are cut before the next one's first.
        yield second * SECOND_MS + SECOND_MS - 1, Event(fields)


class _Day:
    """What had accumulated before a minute, told from its AM event."""

    def __init__(self, minute: dict[str, Any]) -> None:
        self._volume: float = minute["av"] - minute["v"]
        self._turnover: float | None = None
        if "a" in minute and "vw" in minute:
            self._turnover = minute["a"] * minute["av"] - minute["vw"] * minute["v"]

    def volume(self, passed: float) -> int | float:
        total = self._volume + passed
        return total if isinstance(total, int) else round(total, 6)

    def vwap(self, vwap: float, passed: float) -> float | None:
        if self._turnover is None:
            return None
        return round((self._turnover + vwap * passed) / (self._volume + passed), 4)


def _vwap(turnover: int, volume: int, scale: _Scale) -> float:
    """The quotient to four decimals, exactly; a tie goes to the even one."""
    exponent = 4 - scale.price_digits
    over, under = turnover * 10 ** max(exponent, 0), volume * 10 ** max(-exponent, 0)
    quotient, rest = divmod(over, under)
    if 2 * rest > under or (2 * rest == under and quotient % 2):
        quotient += 1
    return float(quotient) / 10_000


def _decimal(number: Number) -> Decimal:
    return number if isinstance(number, Decimal) else Decimal(str(number))


def _digits(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _units(number: Decimal, digits: int) -> int:
    return int(number.scaleb(digits))


def _number(units: int, digits: int) -> int | float:
    return units if digits == 0 else units / 10**digits
