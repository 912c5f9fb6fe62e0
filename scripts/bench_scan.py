"""Scanning: from a bar to its event on Redis, a minute of all symbols, and a history beside TA-Lib's loop."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np
import pandas as pd
import talib
from bench_market import LIVE_SINCE, Market
from bench_support import (
    Latencies,
    Program,
    Row,
    database,
    duration,
    engine_option,
    installations,
    make_console,
    must,
    running,
    seconds,
    show,
)
from psycopg import sql

from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.redis import embedded_redis
from tickstock.patterns import Candles, discover
from tickstock.patterns.evaluate import Failures, Hits, history_columns
from tickstock.patterns.settings import choose
from tickstock.redis import PATTERNS_CHANNEL
from tickstock.simulator import ticker_symbols
from tickstock.timeframes import TIMEFRAMES

PATIENCE = 300.0
"""Seconds after which something that must happen has not happened."""
WARM_UP = 60
"""Minutes that are there before the first one is scanned: windows are full."""
MEMORY_LIMIT = 300
HISTORY_SYMBOLS = 400
DONE = """
select not exists (select from tickstock.scan_queue where ready_at <= latest_minute())
  and (select events_to_publish from tickstock.freshness) = 0
"""
ENDED = """
select timeframe from timeframes
where candle_end(timeframe, candle_start(timeframe, %s)) = %s + interval '1 minute'
order by position desc limit 1
"""
STORED_IN = "select stored_in::text from tickstock.storage where relation = 'ohlcv_' || %s"
PAST = sql.SQL("""
insert into {} (symbol, ts, open, high, low, close, volume, turnover, trades, bars)
select s.symbol, t.ts, x.p * 0.01, (x.p + 5) * 0.01, (x.p - 5) * 0.01, (x.p + t.nth %% 7 - 3) * 0.01,
  100 + x.p %% 900, x.p, 1, 1
from unnest(%(symbols)s::text[]) with ordinality s (symbol, n)
cross join (
  select c.ts, row_number() over () as nth from (
    select distinct candle_start({}, m) as ts from trading_days d
    cross join generate_series(d.opens_at, d.closes_at - interval '1 minute', interval '15 minutes') m
    where d.day < '2025-11-24' and d.day >= '2016-01-04' order by 1 desc limit {}) c) t
cross join lateral (select 1000 + (s.n * 7919 + t.nth * 31) %% 20000 as p) x
order by 1, 2
""")
# Bars of five years, few as they are: on TimescaleDB a chunk for each week.
OLD_BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select 'OLD', timestamptz '2025-11-12 15:00+00' - n * interval '7 days', 10, 11, 9, 10, 100
from generate_series(1, 260) n
"""
SYMBOL = re.compile(rb'"symbol": "([^"]+)"')
TALIB = talib.get_function_groups()["Pattern Recognition"]  # type: ignore[no-untyped-call]


class MissingError(click.ClickException):
    """Not everything came: a figure would mean nothing."""


class Ears(threading.Thread):
    """Hears what is published, and when.

    Off the socket: a client's library would take a processor of the two, which is not what is measured.
    """

    def __init__(self, redis_url: str) -> None:
        super().__init__(daemon=True)
        self.heard = 0
        self.last = 0.0
        self.over = threading.Event()
        self.symbols: dict[str, float] = {}
        """When each symbol was heard of first, since it was cleared."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(urlsplit(redis_url).path)
        self._socket.sendall(f"SUBSCRIBE {PATTERNS_CHANNEL}\r\n".encode())
        if not self._socket.recv(1_000).startswith(b"*3\r\n$9\r\nsubscribe"):
            raise MissingError("Redis did not subscribe us")
        self._socket.settimeout(0.5)

    def run(self) -> None:
        rest = b""
        while not self.over.is_set():
            with suppress(TimeoutError):
                rest += self._socket.recv(1 << 20)
                whole, end, rest = rest.rpartition(b"}\r\n")
                self._hear(whole + end)

    def _hear(self, messages: bytes) -> None:
        found = SYMBOL.findall(messages)
        if found:
            self.last = time.monotonic()
            self.heard += len(found)
            for symbol in set(found):
                self.symbols.setdefault(symbol.decode(), self.last)


@contextmanager
def scanning(url: str, folder: Path) -> Iterator[tuple[Program, Ears]]:
    with embedded_redis() as redis_url:
        ears = Ears(redis_url)
        ears.start()
        scan = Program(folder, "scan", TICKSTOCK_DATABASE_URL=url, TICKSTOCK_REDIS_URL=redis_url)
        try:
            yield scan, ears
        finally:
            scan.stop()
            ears.over.set()
            ears.join()


def wait_for(what: str, condition: Any, look_every: float = 0.001) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise MissingError(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(look_every)


def one_bar(market: Market, ears: Ears, number: int) -> Latencies:
    """From the moment a bar is there to write, to its first event on Redis. Each bar is a Doji."""
    latencies = Latencies([])
    ts = fetch_value(market.conn, "select latest_minute()")
    for n in range(number):
        symbol = market.symbols[n]
        ears.symbols.clear()
        began = time.monotonic()
        market.write([doji(symbol, ts + timedelta(minutes=1))])
        wait_for(f"an event of {symbol}", lambda symbol=symbol: symbol in ears.symbols)
        latencies.times.append(ears.symbols[symbol] - began)
    return latencies


def doji(symbol: str, ts: datetime) -> Bar:
    return Bar(symbol, ts, 100, 101, 99, 100, 500)


def minutes(market: Market, ears: Ears, number: int) -> tuple[dict[str, Latencies], int]:
    """From a minute's last bar committed to its last event published, by the longest candle that it ends;
    how many events that were."""
    latencies: dict[str, Latencies] = {}
    before = ears.heard
    for _ in range(number):
        bars = market.next_minute()
        market.write(bars)
        committed = time.monotonic()
        wait_for("a minute scanned", lambda: fetch_value(market.conn, DONE), look_every=0.1)
        ended = longest_ended(market, bars[0].ts)
        latencies.setdefault(ended, Latencies([])).times.append(max(0.0, ears.last - committed))
        market.refresh()
        # A minute of the market takes a second here, and the server has its housekeeping in between.
        market.conn.execute("checkpoint")
    return latencies, ears.heard - before


def longest_ended(market: Market, ts: datetime) -> str:
    """The longest timeframe of which a candle ends with this minute."""
    return str(fetch_value(market.conn, ENDED, ts, ts))


def live(url: str, folder: Path, symbols: int, number: int) -> list[Row]:
    market = Market(url, bars=symbols, symbols=symbols)
    market.conn.execute("set tickstock.scan_queue = off")
    market.conn.execute(OLD_BARS)
    for timeframe in TIMEFRAMES[2:]:
        market.conn.execute(past(market, timeframe), {"symbols": list(market.symbols)})
    for _ in range(WARM_UP):
        market.write(market.next_minute())
        market.refresh()
    market.conn.execute("reset tickstock.scan_queue")
    market.conn.execute("vacuum analyze")
    with scanning(url, folder) as (scan, ears):
        market.write(market.next_minute())
        wait_for("the first minute scanned", lambda: fetch_value(market.conn, DONE))
        latencies, events = minutes(market, ears, number)
        market.conn.execute("vacuum analyze")
        single = one_bar(market, ears, 100)
        memory = scan.memory()
    return [
        Row(
            "one bar: from its writing to its event on Redis",
            str(single),
            must("p50 < 20 ms, p99 < 100 ms", single.median < 0.020 and single.p99 < 0.100),
        ),
        Row(
            f"{symbols:,} symbols' minute, all patterns: from its commit to the last event published",
            str(latencies["1min"]),
            must("< 1 s", latencies["1min"].worst < 1),
            f"{events:,} events in {number} minutes",
        ),
        *(
            row
            for timeframe in TIMEFRAMES[1:]
            if timeframe in latencies
            for row in of_ended(timeframe, latencies[timeframe].times)
        ),
        Row(
            "peak memory of the scanner",
            f"{memory:.0f} MB",
            must(f"< {MEMORY_LIMIT} MB", memory < MEMORY_LIMIT),
        ),
    ]


def of_ended(timeframe: str, times: list[float]) -> Iterator[Row]:
    what = f"  a minute that ends {timeframe} candles, and the shorter ones"
    if len(times) > 1:
        later = Latencies(times[1:])
        yield Row(what, str(later), must("< 1 s", later.worst < 1))
    yield Row(f"{what}: the first one, whose windows are read", duration(times[0]))


def past(market: Market, timeframe: str) -> sql.Composed:
    """Fills a timeframe with what patterns look back at, as if its bars had been dropped."""
    stored_in = fetch_value(market.conn, STORED_IN, timeframe)
    return PAST.format(
        sql.SQL(stored_in),
        sql.Literal(timeframe),
        sql.Literal(260 if timeframe == "daily" else 110),
    )


def history(url: str, symbols: int) -> list[Row]:
    """The live minutes of the first symbols anew, as an operator scans them; nothing has been found yet."""
    with connect(url, program="bench") as conn:
        conn.execute("truncate events")
        conn.execute("vacuum analyze")
    chosen = [word for symbol in ticker_symbols(symbols) for word in ("--symbol", symbol)]
    command = ("scan", "--from", f"{LIVE_SINCE:%Y-%m-%d}", *chosen, "--json", "--database-url", url)
    found: dict[str, int] = {}

    def scan() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tickstock", *command], stdout=subprocess.PIPE, check=True
        )
        found.update(json.loads(done.stdout))

    took = seconds(scan)
    what = f"tickstock scan --from, {symbols} symbols, all timeframes: {found['candles']:,} candles"
    return [
        Row(
            f"{what}, {found['events']:,} events",
            f"{duration(took)}, {found['candles'] / took:,.0f}/s",
        )
    ]


def batch(candles: int, symbols: int) -> list[Row]:
    """All patterns over a history, beside TA-Lib's 61 called for each symbol on frames of pandas."""
    rng = np.random.default_rng(1)
    frames = [_frame(rng, candles // symbols) for _ in range(symbols)]
    opened, high, low, close, volume = (
        np.concatenate([frame[name].to_numpy() for frame in frames]) for name in frames[0].columns
    )
    day, candle = np.divmod(np.concatenate([np.arange(len(frame)) for frame in frames]), 78)
    opens_at = 1.7e9 + day * 86_400.0
    session = (opens_at, opens_at + 78 * 300)
    series = Candles("5min", opens_at + candle * 300, opened, high, low, close, volume, *session)
    begins = np.cumsum([0, *(len(frame) for frame in frames[:-1])]).tolist()
    chosen = choose(discover(), []).chosen["5min"]
    found: list[Hits] = []
    ours = seconds(lambda: found.extend(history_columns(chosen, series, Failures(), begins=begins)))
    hits = sum(len(each.at) for each in found)
    rival = seconds(lambda: [_talib(frame) for frame in frames])
    return [
        Row(
            f"{len(series):,} candles of {symbols:,} symbols, {len(chosen)} patterns: {hits:,} found",
            duration(ours),
            must("5 times", rival / ours >= 5),
            f"{rival / ours:.1f} times as fast",
        ),
        Row(
            f"instead: TA-Lib's {len(TALIB)} for each symbol, on frames of pandas", duration(rival)
        ),
    ]


def _frame(rng: np.random.Generator, candles: int) -> pd.DataFrame:
    close = 100 + np.cumsum(rng.integers(-30, 31, candles)) / 100
    opened = close + rng.integers(-30, 31, candles) / 100
    high = np.maximum(opened, close) + rng.integers(0, 30, candles) / 100
    low = np.minimum(opened, close) - rng.integers(0, 30, candles) / 100
    volume = rng.integers(100, 10_000, candles).astype(float)
    return pd.DataFrame(
        {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    )


def _talib(frame: pd.DataFrame) -> int:
    number = 0
    for name in TALIB:
        values = getattr(talib, name)(frame["open"], frame["high"], frame["low"], frame["close"])
        number += int((values != 0).sum())
    return number


@click.command()
@engine_option
@click.option("--symbols", default=10_000, show_default=True, help="Symbols that trade.")
@click.option(
    "--minutes",
    "number",
    default=150,
    show_default=True,
    type=click.IntRange(min=10),
    help="Minutes scanned, from half past an hour on; each fifth ends larger candles.",
)
@click.option("--candles", default=1_000_000, show_default=True, help="Candles of the history.")
def main(engines: tuple[str, ...], symbols: int, number: int, candles: int) -> None:
    """Measure scanning on every engine that this machine has, with one scanner."""
    console = make_console()
    show(console, "History, in memory", batch(candles, 1_000))
    with TemporaryDirectory() as name:
        for installation in installations(engines):
            console.rule(str(installation), align="left")
            with running(installation) as dsn, database(dsn, "scan") as url:
                show(console, "Live", live(url, Path(name), symbols, number))
                show(console, "History", history(url, min(symbols, HISTORY_SYMBOLS)))


if __name__ == "__main__":
    main()
