"""Grafana's dashboards: the query of each panel, variable and annotation, as a viewer's browser sends it."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

import click
import psycopg
from bench_market import Market
from bench_support import (
    Conn,
    Latencies,
    Row,
    database,
    engine_option,
    installations,
    make_console,
    must,
    running,
    seconds,
    show,
)

from tests.grafana.dashboards import DASHBOARDS, All, Query, Range, Values, expand, queries
from tickstock.db.connection import fetch_value

LIMIT = 0.100
"""Seconds."""
LIVE_MINUTES = 12
CANDLES_SHOWN = 400
POINTS = 1_000
"""Of a graph, by which Grafana chooses its interval."""
DAY = timedelta(days=1)
SINCE_FRIDAY = timedelta(days=4)
"""The live day is a Monday, and young."""

# Ten events of each symbol on each day: about half a million.
EVENTS = """
insert into events (pattern, symbol, timeframe, ts, direction, price, details, lag)
select 'Pattern' || p, s.symbol, (array['1min', '5min', '15min'])[1 + p %% 3],
  date_bin((array['1 min', '5 min', '15 min']::interval[])[1 + p %% 3],
    d.opens_at + ((s.n * 17 + p * 37) %% 390) * interval '1 minute', '2000-01-03 00:00+00'),
  (array['long', 'short', 'neutral'])[1 + (p + s.n) %% 3], 100, '{"body": 0.1}', '0'
from unnest(%s::text[]) with ordinality s (symbol, n)
cross join (select * from trading_days where opens_at between %s and feed_clock()) d
cross join generate_series(1, 10) p
"""
# Two subscriptions a day, with half an hour of which nothing came between them.
LEDGER = """
with stretch as (
  insert into feed_stretches (feed, channel, starts, latest, bars, closed_at, reason)
  select 'wss://feed.example', 'AM', t.starts, t.starts + interval '210 minutes', 1000, d.closes_at, 'lost'
  from trading_days d cross join generate_series(0, 1) s (part)
  cross join lateral (select d.opens_at + s.part * interval '4 hours' as starts) t
  where d.opens_at between %s and feed_clock() order by t.starts
  returning id, starts, latest
)
insert into minutes_complete (ts, stretch, bars, completed_at)
select m, s.id, 1000, m + interval '61 seconds'
from stretch s cross join generate_series(s.starts, s.latest, interval '1 minute') m
"""
REFUSED = """
insert into refused_bars (source, reason, payload)
select 'feed', 'low above open', repeat('x', 500) from generate_series(1, 10000)
"""
PATTERNS = """
insert into patterns (pattern, kind, summary, default_timeframes, default_parameters, candles)
select 'Pattern' || p, 'python', 'For the bench.', '{1min}', '{}', 1 from generate_series(1, 10) p
"""


class Viewer:
    """Looks at dashboards over the last hours of the feed, with symbols and timeframes at random."""

    def __init__(self, conn: Conn, symbols: tuple[str, ...]) -> None:
        self._conn = psycopg.ClientCursor(conn)
        self._symbols = symbols
        self._random = random.Random(0)
        self._clock: datetime = fetch_value(conn, "select feed_clock()")
        self._widths: dict[str, timedelta] = dict(
            conn.execute("select timeframe, width from timeframes").fetchall()
        )

    def ask(self, query: Query) -> None:
        """Every time with other values, and by the simple protocol, as Grafana does."""
        choices, span = self._choices(query.dashboard)
        range_ = Range(self._clock - span, self._clock)
        statement = expand(query, choices, range_, max(span / POINTS, timedelta(minutes=1)))
        self._conn.execute(statement.encode()).fetchall()

    def _choices(self, dashboard: str) -> tuple[Values, timedelta]:
        symbol = self._random.choice(self._symbols)
        if dashboard == "operations":
            return {}, SINCE_FRIDAY
        if dashboard == "events":
            every = All("''")
            one = self._random.random() < 0.5
            return {
                "symbol": symbol if one else every,
                "timeframe": every,
                "pattern": every,
            }, SINCE_FRIDAY
        timeframe = self._random.choice(list(self._widths))
        sessions = self._random.choice(["all", "regular"])
        return {
            "symbol": symbol,
            "timeframe": timeframe,
            "sessions": sessions,
            "pattern": All("''"),
        }, max(DAY, CANDLES_SHOWN * self._widths[timeframe])


def make(market: Market) -> None:
    """A long history with events and a ledger, and a day that goes on."""
    market.fill()
    for _ in range(LIVE_MINUTES):
        market.write(market.next_minute())
    since, _ = market.sessions[0]
    market.conn.execute(EVENTS, (list(market.old_symbols), since))
    market.conn.execute(LEDGER, (since,))
    market.conn.execute(REFUSED)
    market.conn.execute(PATTERNS)
    market.conn.execute("vacuum analyze")


def measure(url: str, market: Market, rounds: int) -> Iterator[tuple[str, list[Row]]]:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set timezone = 'UTC'")
        viewer = Viewer(conn, market.old_symbols)
        for name in DASHBOARDS:
            rows = []
            for query in queries(name):
                viewer.ask(query)  # a session's first plan, and what is in memory afterwards
                times = Latencies([seconds(partial(viewer.ask, query)) for _ in range(rounds)])
                limit = must("p99 < 100 ms", times.p99 < LIMIT)
                rows.append(Row(f"{query.title} ({query.kind})", str(times), limit))
            yield name, rows


@click.command()
@engine_option
@click.option("--bars", default=20_000_000, show_default=True, help="Bars in the table.")
@click.option("--symbols", default=10_000, show_default=True, help="Symbols that trade.")
@click.option("--rounds", default=100, show_default=True, help="How often each query is asked.")
def main(engines: tuple[str, ...], bars: int, symbols: int, rounds: int) -> None:
    """Measure the queries of Grafana's dashboards on every engine that this machine has."""
    console = make_console()
    for installation in installations(engines):
        console.rule(str(installation), align="left")
        with running(installation) as dsn, database(dsn, "panels") as url:
            market = Market(url, bars=bars, symbols=symbols)
            console.print(f"making the market: {seconds(partial(make, market)):.0f} s")
            for name, rows in measure(url, market, rounds):
                show(console, name, rows)


if __name__ == "__main__":
    main()
