"""The demo: feed, ingest, scan and listen as real processes, and what a person sees of them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from decimal import Decimal

import orjson
from psycopg import Connection
from psycopg.rows import TupleRow
from rich.console import Console
from rich.table import Table

from tickstock.bars import Bar
from tickstock.counted import counted
from tickstock.db.connection import connect, fetch_value, require_schema, where
from tickstock.db.source import Database
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import TickstockError
from tickstock.scan.listen import in_words
from tickstock.simulator import RandomMarket, Simulator

KEPT = {"TICKSTOCK_CACHE_DIR", "TICKSTOCK_DATA_DIR", "TICKSTOCK_ENGINE"}
KEY = "demo"
SHOWN_SYMBOLS = 3
SHOWN_TIMEFRAMES = ("1min", "5min", "1hour")
EVENTS_SHOWN = 6
"""Events between two looks at the candles, each of another pattern; more are counted only."""
PATTERNS_SHOWN = 12
"""In the summary, those found most often."""
MARKET_MINUTES = 240
"""Minutes of market that the demo plays: from before the opening until after noon."""


class Demo:
    """Runs the pipeline for some seconds and tells on standard output what happens.

    TickstockError when the database already holds bars: a simulated market must not mix with them.
    """

    def __init__(self, source: Database, *, seconds: int, symbols: int) -> None:
        self._source = source
        self._seconds = seconds
        self._market = RandomMarket(symbols, seed=int(time.time()), start=self._opening())
        self._console = Console(highlight=False)
        self._events = 0
        self._shown: set[str] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Raises TickstockError when a part fails, or a bar that was sent is not stored."""
        speed = MARKET_MINUTES * 60 / self._seconds
        with ExitStack() as stack:
            environment = self._environment(stack)
            simulator = stack.enter_context(Simulator(self._market, keys=[KEY], speed=speed))
            self._introduce(simulator, speed, environment)
            listen = stack.enter_context(self._process("listen", "--json", env=environment))
            threading.Thread(target=self._hear, args=(listen,), daemon=True).start()
            scan = stack.enter_context(self._process("scan", env=environment))
            ingest = stack.enter_context(
                self._process(
                    "ingest",
                    *("--symbols", "*"),
                    *("--feed-url", simulator.url),
                    *("--rest-url", simulator.rest_url),
                    env=environment,
                )
            )
            self._watch({"ingest": ingest, "scan": scan, "listen": listen}, simulator)
            simulator.pause()
            simulator.settle()
            self._wait_until_stored(simulator)
            self._wait_until_scanned()
        self._summarize(simulator)

    def _opening(self) -> datetime:
        """An hour before the opening of the latest session that is over, in a database without bars."""
        with connect(self._source.url, program="demo") as conn:
            require_schema(conn)
            if fetch_value(conn, "select exists (select from ohlcv_1min)"):
                raise TickstockError(
                    f"the database at {where(self._source.url)} holds bars already, and the demo would "
                    "mix a simulated market into them: give it an empty one, or none"
                )
            opening = fetch_value(
                conn,
                "select max(opens_at) - interval '1 hour' from trading_days where closes_at < now()",
            )
        assert isinstance(opening, datetime)
        return opening

    def _environment(self, stack: ExitStack) -> dict[str, str]:
        """The operator's, but for settings: the demo is of its own, above all its Redis and its feed."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or not name.startswith("TICKSTOCK_")
        }
        environment = inherited | {
            "MASSIVE_API_KEY": KEY,
            "TICKSTOCK_DATABASE_URL": self._source.url,
            "TICKSTOCK_SETTINGS": os.devnull,
        }
        if find_redis_server():
            environment["TICKSTOCK_REDIS_URL"] = stack.enter_context(embedded_redis())
        return environment

    def _introduce(self, simulator: Simulator, speed: float, environment: dict[str, str]) -> None:
        say = self._console.print
        with connect(self._source.url, program="demo") as conn:
            engine = fetch_value(conn, "select tickstock_engine()")
        where = self._source.installation or "the database of your settings"
        say(f"[bold]database[/]  {where}; engine {engine}", soft_wrap=True)
        redis = (
            "a server of our own"
            if "TICKSTOCK_REDIS_URL" in environment
            else ("none found; events go by NOTIFY alone")
        )
        say(f"[bold]redis[/]     {redis}")
        say(
            f"[bold]feed[/]      {simulator.url}: {counted(len(self._market.symbols), 'symbol')}, "
            f"{speed:,.0f} times real time, from 08:30 New York",
            soft_wrap=True,
        )

    @contextmanager
    def _process(self, *arguments: str, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
        """A tickstock command of its own process; asked to end (SIGTERM) at the latest on leaving."""
        stdout = subprocess.PIPE if arguments[0] == "listen" else subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, "-m", "tickstock", *arguments, "--quiet"], env=env, stdout=stdout
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _hear(self, listen: "subprocess.Popen[bytes]") -> None:
        assert listen.stdout is not None
        for line in listen.stdout:
            with self._lock:
                self._events += 1
                event = orjson.loads(line)
                if event["pattern"] not in self._shown and len(self._shown) < EVENTS_SHOWN:
                    self._shown.add(event["pattern"])
                    self._console.print(f"  [cyan]event[/] {in_words(event)}", soft_wrap=True)

    def _watch(self, parts: dict[str, "subprocess.Popen[bytes]"], simulator: Simulator) -> None:
        """Show what happens until the time is over. Raises TickstockError when a part ended."""
        until = time.monotonic() + self._seconds
        with connect(self._source.url, program="demo") as conn:
            while (left := until - time.monotonic()) > 0:
                with self._lock:
                    self._shown.clear()
                before, sent_before = time.monotonic(), len(simulator.sent)
                simulator.finished.wait(min(left, max(self._seconds / 6, 2)))
                for name, process in parts.items():
                    if process.poll() is not None:
                        raise TickstockError(
                            f"tickstock {name} ended with exit code {process.returncode}"
                        )
                rate = (len(simulator.sent) - sent_before) / (time.monotonic() - before)
                with self._lock:
                    self._show(conn, simulator, rate)

    def _show(self, conn: Connection[TupleRow], simulator: Simulator, rate: float) -> None:
        stored = fetch_value(conn, "select count(*) from ohlcv_1min")
        clock = f"{simulator.clock:%Y-%m-%d %H:%M} UTC" if simulator.clock else "closed"
        table = Table(
            "symbol",
            "timeframe",
            "from (UTC)",
            box=None,
            title_justify="left",
            title=f"market at {clock}: {rate:,.0f} bars/s sent, {counted(stored, 'bar')} stored, "
            f"{counted(self._events, 'event')} heard",
        )
        for column in ("open", "high", "low", "close", "volume", "bars"):
            table.add_column(column, justify="right")
        for symbol in self._market.symbols[:SHOWN_SYMBOLS]:
            for timeframe in SHOWN_TIMEFRAMES:
                row = conn.execute(LATEST[timeframe], (symbol,)).fetchone()
                if row:
                    table.add_row(
                        symbol, timeframe, f"{row[0]:%H:%M}", *(f"{v:,}" for v in row[1:])
                    )
        self._console.print(table)

    def _wait_until_stored(self, simulator: Simulator) -> None:
        with connect(self._source.url, program="demo") as conn:
            self._until(lambda: not missing_bars(conn, simulator.sent), 20)

    def _wait_until_scanned(self) -> None:
        query = "select count(*) from tickstock.scan_queue where ready_at <= (select max(ts) from ohlcv_1min)"
        with connect(self._source.url, program="demo") as conn:
            self._until(lambda: fetch_value(conn, query) == 0, 20)

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _summarize(self, simulator: Simulator) -> None:
        say = self._console.print
        with connect(self._source.url, program="demo") as conn:
            missing = missing_bars(conn, simulator.sent)
            say()
            table = Table("pattern", box=None)
            table.add_column("events", justify="right")
            found = conn.execute(EVENTS).fetchall()
            for pattern, number in found[:PATTERNS_SHOWN]:
                table.add_row(pattern, f"{number:,}")
            if rest := found[PATTERNS_SHOWN:]:
                table.add_row(counted(len(rest), "other"), f"{sum(number for _, number in rest):,}")
            say(table)
            if fetch_value(conn, "select tickstock_engine()") != "postgres":
                names = fetch_value(
                    conn,
                    "select string_agg(hypertable_name, ', ') from timescaledb_information.hypertables"
                    " where hypertable_schema = 'public'",
                )
                say(f"timescaledb_information.hypertables: {names}")
        if missing:
            symbol, ts = missing[0]
            raise TickstockError(
                f"{len(missing):,} of {len(simulator.sent):,} bars sent are not stored as sent, "
                f"the first is {symbol} at {ts:%Y-%m-%d %H:%M} UTC: this is a bug, please report it"
            )
        say(
            f"[bold green]every bar sent is stored[/]: {len(simulator.sent):,} of {len(simulator.sent):,}"
        )
        program = os.path.relpath(sys.argv[0])
        demo = " --demo" if self._source.installation else ""
        say(
            f"look around:  [bold]{program} db shell{demo}[/]   (psql; the data stays until the next demo)"
        )
        symbol = self._market.symbols[0]
        say(f"and a chart:  [bold]{program} chart {symbol} 1min{demo}[/]")


LATEST = {
    "1min": "select ts, open, high, low, close, volume, bars from ohlcv_1min"
    " where symbol = %s order by ts desc limit 1",
    "5min": "select ts, open, high, low, close, volume, bars from ohlcv_5min"
    " where symbol = %s order by ts desc limit 1",
    "1hour": "select ts, open, high, low, close, volume, bars from ohlcv_1hour"
    " where symbol = %s order by ts desc limit 1",
}
EVENTS = "select pattern, count(*) from events group by pattern order by 2 desc, 1"


def missing_bars(
    conn: Connection[TupleRow], sent: Mapping[tuple[str, datetime], Bar]
) -> list[tuple[str, datetime]]:
    """Which of these bars the table does not hold exactly as they were sent."""
    if not sent:
        return []
    first, last = min(ts for _, ts in sent), max(ts for _, ts in sent)
    stored = {
        (row[0], row[1]): row[2:]
        for row in conn.execute(
            "select symbol, ts, open, high, low, close, volume, vwap from ohlcv_1min"
            " where ts between %s and %s",
            (first, last),
        )
    }
    return [key for key, bar in sent.items() if stored.get(key) != tuple(map(_exact, bar[2:8]))]


def _exact(number: object) -> Decimal | None:
    return None if number is None else Decimal(str(number))
