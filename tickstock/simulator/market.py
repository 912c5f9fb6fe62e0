"""Markets to simulate: a clock of minutes with the bars that traded in each.

A market is anything with `symbols` and `minutes()`; here is the random one.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, compress, count, islice, repeat
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from tickstock.bars import Bar

NEW_YORK = ZoneInfo("America/New_York")

MINUTE = timedelta(minutes=1)

OPENING = time(4, 0)
"""First minute with trading (pre-market), New York time."""
REGULAR_OPENING = time(9, 30)

_PRE_MARKET, _REGULAR, _AFTER_HOURS = 330, 390, 240
_TRADING_DAY = _PRE_MARKET + _REGULAR + _AFTER_HOURS
"""Minutes from 04:00 to 20:00."""
_MORNING = slice(_PRE_MARKET, _PRE_MARKET + 150)
"""09:30 to 12:00, counted from 04:00."""

_WELL_KNOWN = (
    "AAPL TSLA MSFT SPY NVDA AMZN QQQ META GOOGL AMD NFLX INTC IWM JPM BAC XOM F T DIS KO PFE WMT "
    "BA CSCO ORCL CRM ADBE PYPL UBER GME AMC PLTR SOFI NIO RIVN MARA COIN HOOD SNAP C WFC GS MS V "
    "MA HD PG JNJ CVX BRK.B"
)
KNOWN_TICKERS = tuple(_WELL_KNOWN.split())

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Minute(NamedTuple):
    """One minute of the market clock. `ts` is its start in UTC; `bars` may be empty."""

    ts: datetime
    bars: list[Bar]


class Market(Protocol):
    """What the simulator plays."""

    @property
    def symbols(self) -> Sequence[str]:
        """Every symbol that may have a bar."""

    def minutes(self) -> Iterator[Minute]:
        """The minutes of trading from the first, `ts` ascending; closed hours are left out."""


def default_start(now: datetime) -> datetime:
    """08:30 New York time, as UTC, of the latest weekday that lies completely before `now`'s day.

    Simulated time so begins in the past, and a demo at many times real speed does not reach
    minutes that a consumer must refuse as lying in the future: eleven hours of trading remain
    in that day. `now` is timezone-aware.
    """
    day = now.astimezone(NEW_YORK).date() - timedelta(days=1)
    while not _is_weekday(day):
        day -= timedelta(days=1)
    return datetime.combine(day, time(8, 30), NEW_YORK).astimezone(UTC)


def ticker_symbols(number: int) -> tuple[str, ...]:
    """The first `number` tickers: well-known ones, then invented ones; always the same, unique."""
    invented = (ticker for ticker in _invented_tickers() if ticker not in KNOWN_TICKERS)
    symbols = tuple(islice(chain(KNOWN_TICKERS, invented), max(0, number)))
    if not symbols or len(symbols) < number:
        raise ValueError(f"{number} symbols are not possible: give a number from 1 to 474,000")
    return symbols


class RandomMarket:
    """A seeded random walk of many symbols through New York trading days, 04:00 to 20:00.

    The same arguments give the same bars. Weekdays are trading days, holidays included. Trading
    is thin before 09:30 and after 16:00, U-shaped in between; a symbol that did not trade in a
    minute has no bar in it. Volatility comes in regimes, and bursts of volume with drift, most
    of them before noon, make prices break out. Prices are on a grid of 0.01.

    `symbols`: a number of them, or their names. `start`, `end` (exclusive): timezone-aware;
    without `start` see `default_start`, without `end` the market goes on for ever. Where each
    call of `minutes()` begins is fixed when the market is made.
    Raises ValueError for no symbols, repeated symbols and times without a zone.
    """

    def __init__(
        self,
        symbols: int | Sequence[str],
        *,
        seed: int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        names = ticker_symbols(symbols) if isinstance(symbols, int) else tuple(symbols)
        if not names or len(set(names)) < len(names):
            raise ValueError("a market needs at least one symbol, and each only once")
        if any(moment and moment.tzinfo is None for moment in (start, end)):
            raise ValueError("start and end of a market need a time zone")
        self._symbols = names
        self._seed = seed
        self._start = start or default_start(datetime.now(UTC))
        self._end = end

    @property
    def symbols(self) -> Sequence[str]:
        """Every symbol that may have a bar."""
        return self._symbols

    def minutes(self) -> Iterator[Minute]:
        """The minutes of trading from `start`; every call begins anew with the same bars."""
        walk = _Walk(self._symbols, np.random.default_rng(self._seed))
        first_day = self._start.astimezone(NEW_YORK).date()
        for day in filter(_is_weekday, _days_from(first_day)):
            opening = datetime.combine(day, OPENING, NEW_YORK).astimezone(UTC)
            walk.open_day()
            for minute in range(_TRADING_DAY):
                ts = opening + minute * MINUTE
                if self._end is not None and ts >= self._end:
                    return
                if ts >= self._start:
                    yield Minute(ts, walk.bars(ts, minute))


class _Profile(NamedTuple):
    """How a trading day goes: one number for each minute from 04:00, 1 being a usual one."""

    activity: Floats
    volatility: Floats
    burst_odds: Floats


def _profile_of_a_day() -> _Profile:
    before = np.linspace(0.0, 1.0, _PRE_MARKET, endpoint=False)
    during = np.linspace(-1.0, 1.0, _REGULAR)
    after = np.linspace(0.0, 1.0, _AFTER_HOURS, endpoint=False)
    activity = np.concatenate(
        [
            0.01 + 0.14 * before**2,
            0.5 + 1.6 * np.abs(during) ** 3,
            0.005 + 0.15 * np.exp(-6.0 * after),
        ]
    )
    burst_odds = np.full(_TRADING_DAY, 0.0008)
    burst_odds[_MORNING] = 0.004
    return _Profile(activity, 0.3 + 0.7 * np.sqrt(activity), burst_odds)


_PROFILE = _profile_of_a_day()


class _Candles(NamedTuple):
    """One minute of all symbols, in whole ticks of 0.01; where `trades` is 0 there is no bar."""

    opens: Floats
    highs: Floats
    lows: Floats
    closes: Floats
    volumes: Floats
    trades: Integers


class _Walk:
    """The state of every symbol's random walk, advanced minute by minute."""

    def __init__(self, symbols: Sequence[str], random: np.random.Generator) -> None:
        size = len(symbols)
        known = np.isin(np.array(symbols), KNOWN_TICKERS)
        liquidity = np.clip(random.lognormal(2.5, 1.3, size), 0.3, 500.0)
        self._symbols = symbols
        self._random = random
        self._trades_a_minute = np.where(known, 100.0 + liquidity, liquidity)
        self._shares_a_trade = random.uniform(40.0, 180.0, size)
        usual_price = random.lognormal(np.where(known, 9.6, 8.2), np.where(known, 0.6, 1.0))
        self._home = np.clip(usual_price, 300.0, 80_000.0)
        self._price = np.rint(self._home)
        self._sigma = random.uniform(0.0004, 0.0016, size)
        self._regime = np.ones(size)
        self._burst_left = np.zeros(size, dtype=np.int64)
        self._burst_drift = np.zeros(size)
        self._burst_volume = np.ones(size)

    def open_day(self) -> None:
        """The gap between the last price of a day and the first of the next."""
        gap = self._random.normal(0.0, 0.012, self._price.size)
        self._price = _on_grid(self._price * np.exp(gap))

    def bars(self, ts: datetime, minute: int) -> list[Bar]:
        """The bars of the next minute, the `minute`th of its day, which begins at `ts`."""
        candles = self._trade(minute)
        traded = candles.trades > 0
        self._price = np.where(traded, candles.closes, self._price)
        return list(
            map(
                Bar,
                compress(self._symbols, traded.tolist()),
                repeat(ts),
                *((prices[traded] / 100.0).tolist() for prices in candles[:4]),
                candles.volumes[traded].astype(np.int64).tolist(),
                (self._vwap(candles)[traded] / 10_000.0).tolist(),
                candles.trades[traded].tolist(),
            )
        )

    def _trade(self, minute: int) -> _Candles:
        self._change_regimes()
        bursting = self._burst(_PROFILE.burst_odds[minute])
        noise = self._random.standard_normal((5, self._price.size))
        sigma = self._sigma * self._regime * _PROFILE.volatility[minute]
        drift = np.where(bursting, self._burst_drift, 0.0) + 0.3 * self._random.standard_normal()
        pull = 0.0002 * np.log(self._home / self._price)
        opens = _on_grid(self._price * (1.0 + 0.15 * sigma * noise[0]))
        closes = _on_grid(opens * np.exp(sigma * (noise[1] + drift) + pull))
        trades = self._random.poisson(
            self._trades_a_minute
            * _PROFILE.activity[minute]
            * np.where(bursting, self._burst_volume, 1.0)
        )
        closes = np.where(trades < 2, opens, closes)
        # A price apart from the first and the last needs a trade of its own: a third, a fourth.
        reach = 0.5 * sigma * np.abs(noise[2:4])
        highs = np.maximum(opens, closes) * (1.0 + np.where(trades > 2, reach[0], 0.0))
        lows = np.minimum(opens, closes) * (1.0 - np.where(trades > 3, reach[1], 0.0))
        volumes = np.rint(trades * self._shares_a_trade * np.exp(0.35 * noise[4]))
        return _Candles(
            opens,
            _on_grid(highs),
            _on_grid(lows),
            closes,
            np.maximum(volumes, trades),
            trades,
        )

    def _change_regimes(self) -> None:
        """Now and then a symbol turns calm or wild, and stays so for about an hour."""
        turning = self._random.random(self._regime.size) < 1.0 / 60.0
        fresh = self._random.choice((0.5, 1.0, 1.0, 2.2), self._regime.size)
        self._regime = np.where(turning, fresh, self._regime)

    def _burst(self, odds: float) -> NDArray[np.bool_]:
        """Begin and end bursts: minutes of high volume in which the price runs one way."""
        size = self._price.size
        self._burst_left = np.maximum(self._burst_left - 1, 0)
        starting = (self._random.random(size) < odds) & (self._burst_left == 0)
        lengths = self._random.integers(4, 16, size)
        drifts = self._random.choice((-1.0, 1.0), size) * self._random.uniform(0.6, 1.8, size)
        volumes = self._random.uniform(2.0, 7.0, size)
        self._burst_left = np.where(starting, lengths, self._burst_left)
        self._burst_drift = np.where(starting, drifts, self._burst_drift)
        self._burst_volume = np.where(starting, volumes, self._burst_volume)
        return self._burst_left > 0

    def _vwap(self, candles: _Candles) -> Floats:
        """Somewhere between the body's and the range's middle, in units of 0.0001.

        Always one that so many trades of so many shares can have: `simulator.tape` finds them.
        """
        opens, highs, lows, closes, volumes, trades = candles
        share = self._random.random(self._price.size)
        wanted = 0.5 * (share * (opens + closes) + (1.0 - share) * (highs + lows))
        body_high, body_low = np.maximum(opens, closes), np.minimum(opens, closes)
        # One share each for the trades that make open, close, high and low; the rest is free.
        needed = 1.0 + (trades > 1) + (highs > body_high) + (lows < body_low)
        turnover = opens + np.where(trades > 1, closes, 0.0)
        turnover += np.where(highs > body_high, highs, 0.0) + np.where(lows < body_low, lows, 0.0)
        free, spare = volumes - needed, trades - needed
        turnover += np.select(
            [spare > 1, spare == 1], [np.rint(free * wanted), free * np.rint(wanted)], free * opens
        )
        return np.rint(100.0 * turnover / np.maximum(volumes, 1.0))


def _on_grid(prices: Floats) -> Floats:
    """Whole ticks, never below 0.50."""
    return np.rint(np.maximum(prices, 50.0))


def _is_weekday(day: date) -> bool:
    return day.weekday() < 5


def _days_from(first: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in count())


def _invented_tickers() -> Iterator[str]:
    """All words of three and four letters, in an order that looks random and never changes."""
    three, four = 26**3, 26**4
    for number in range(three + four):
        place = number * 196_613 % (three + four)
        yield _word(place, 3) if place < three else _word(place - three, 4)


def _word(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("A") + letter))
    return "".join(letters)
