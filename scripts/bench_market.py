"""The market that the live measurements share: a long history, and a day that goes on."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bench_support import Conn

from tickstock.bars import Bar
from tickstock.db.connection import connect
from tickstock.db.writer import write_bars
from tickstock.ingest.load import RefreshBehind
from tickstock.simulator import ticker_symbols
from tickstock.timeframes import TIMEFRAMES

LIVE_SINCE = datetime(2025, 11, 24, tzinfo=UTC)
"""A Monday; the history ends on the Friday before."""
MINUTES_A_DAY = 390

# Prices and volumes from arithmetic: twenty million bars in minutes, the same on each engine.
FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select s.symbol, d.opens_at + m * interval '1 minute', x.p * 0.01, (x.p + 5) * 0.01, (x.p - 5) * 0.01,
  (x.p + m %% 7 - 3) * 0.01, 100 + x.p %% 900, x.p * 0.01 + 0.0012, 1 + x.p %% 50
from unnest(%(symbols)s::text[]) with ordinality s (symbol, n)
cross join (select * from trading_days where opens_at = %(opening)s) d
cross join generate_series(0, extract(epoch from d.closes_at - d.opens_at)::int / 60 - 1) m
cross join lateral
  (select 1000 + (s.n * 7919 + m * 31 + extract(doy from d.day)::int * 17) %% 20000 as p) x
"""
HISTORY = """
select opens_at, closes_at from
  (select * from trading_days where opens_at < %s order by day desc limit %s) d order by day
"""


class Market:
    """Bars of a tenth of the symbols on many days; then all symbols trade, minute by minute."""

    def __init__(self, url: str, *, bars: int, symbols: int) -> None:
        self.url = url
        self.conn = connect(url, program="bench")
        self.random = random.Random(0)
        self.symbols = ticker_symbols(symbols)
        self.old_symbols = self.symbols[: max(1, symbols // 10)]
        number = max(1, round(bars / len(self.old_symbols) / MINUTES_A_DAY))
        self.sessions = self.conn.execute(HISTORY, (LIVE_SINCE, number)).fetchall()
        self._minutes = self._live_minutes()

    def fill(self) -> None:
        """Make the history, with its candles."""
        self.conn.execute("set tickstock.scan_queue = off")
        with RefreshBehind(self.url) as refresh:
            for opening, _ in self.sessions:
                self.conn.execute(FILL, {"symbols": list(self.old_symbols), "opening": opening})
                refresh.tell()
        self.refresh()
        self.conn.execute("reset tickstock.scan_queue")
        self.conn.execute("vacuum analyze")

    def refresh(self) -> None:
        self.conn.execute("call ohlcv_refresh()")

    def next_minute(self) -> list[Bar]:
        """Each symbol's bar of the next minute."""
        ts = next(self._minutes)
        return [self.bar(symbol, ts) for symbol in self.symbols]

    def write(self, bars: list[Bar]) -> None:
        write_bars(self.conn, bars, source="bench")

    def late_bar(self, days: int | None = None) -> Bar:
        """In place of one of the last so many days of the history, or of all of it."""
        opening, close = self.random.choice(self.sessions[-days if days else 0 :])
        minutes = (close - opening) // timedelta(minutes=1)
        ts = opening + self.random.randrange(minutes) * timedelta(minutes=1)
        return self.bar(self.random.choice(self.old_symbols), ts)

    def bar(self, symbol: str, ts: datetime) -> Bar:
        cents = self.random.randrange(1_000, 21_000)
        return Bar(
            symbol,
            ts,
            open=cents / 100,
            high=(cents + 5) / 100,
            low=(cents - 5) / 100,
            close=(cents + self.random.randrange(-4, 5)) / 100,
            volume=self.random.randrange(100, 1_000),
            vwap=(cents * 100 + 12) / 10_000,
            trades=self.random.randrange(1, 50),
        )

    def some_symbols(self) -> list[str]:
        """Old and new ones, to be checked."""
        return [
            *self.random.sample(self.old_symbols, min(20, len(self.old_symbols))),
            *self.random.sample(self.symbols, min(20, len(self.symbols))),
        ]

    def read_last_300(self, conn: Conn, timeframe: str) -> None:
        query = "select * from candles(%s, %s, last => 300)"
        conn.execute(query, (self.random.choice(self.old_symbols), timeframe)).fetchall()

    def read_any(self, conn: Conn) -> None:
        self.read_last_300(conn, self.random.choice(TIMEFRAMES))

    def _live_minutes(self) -> Iterator[datetime]:
        days = self.conn.execute(
            "select opens_at, closes_at from trading_days where opens_at > %s order by day",
            (LIVE_SINCE,),
        ).fetchall()
        for opening, close in days:
            for minute in range((close - opening) // timedelta(minutes=1)):
                yield opening + minute * timedelta(minutes=1)
