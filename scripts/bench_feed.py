"""The feed: what is drained, parsed and stored in a second, beside the vendor's client that receives."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click
from bench_feed_server import frame
from bench_support import (
    Conn,
    Latencies,
    Program,
    Row,
    database,
    engine_option,
    installations,
    make_console,
    must,
    running,
    show,
)

from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.simulator import RandomMarket
from tickstock.simulator.events import Encoder, Event, frames
from tickstock.simulator.market import Minute
from tickstock.simulator.tape import Tape

HERE = Path(__file__).parent
START = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)
FRAME_EVENTS = 100
PATIENCE = 120.0
"""Seconds after which something that must happen has not happened."""
BURST_LIMIT, MEMORY_LIMIT = 0.5, 250
BARS = "select coalesce(sum(bars), 0)::bigint from feed_stretches"
COPY = "copy ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap) from stdin"
LAST_TICK = "select exists (select from ticks where symbol = %s and ts = %s and sequence = %s)"


class MissingError(click.ClickException):
    """Not all that was sent is stored: a figure would mean nothing."""


class Stream(NamedTuple):
    """What one channel sends, as it goes over the wire."""

    channel: str
    data: bytes
    events: int
    ends: list[int]
    """Bytes up to the end of each minute."""
    stored: list[int]
    """Bars that must be stored when each minute has been sent."""
    last: tuple[str, datetime, int]
    """Symbol, time and sequence of the last event, where it is a trade."""

    @property
    def bars(self) -> int:
        return self.stored[-1]


def stream(channel: str, symbols: int, minutes: int, *, trades: int | None = None) -> Stream:
    """A random market's minutes; `trades`: so many in each bar, else as many as the market has."""
    market = _market(symbols, minutes)
    encoder, data, ends, bars, events = Encoder(), bytearray(), [], [0], 0
    for minute in market.minutes():
        if trades is not None:
            minute = minute._replace(bars=[bar._replace(trades=trades) for bar in minute.bars])
        some = _events(channel, minute, encoder)
        for each in frames(some, FRAME_EVENTS):
            data += frame(each.payload)
        ends.append(len(data))
        events += len(some)
        bars.append(bars[-1] + len(minute.bars))
    fields = some[-1].fields
    at = START + timedelta(milliseconds=fields.get("t", 0) - START.timestamp() * 1_000)
    last = fields["sym"], at, fields.get("q", 0)
    if channel == "AM":
        return Stream(channel, bytes(data), events, ends, bars[1:], last)
    # Of the first minute something may be missing, and a minute is over when the next one goes on.
    made = [0, *(number - bars[1] for number in bars[1:-1])]
    return Stream(channel, bytes(data), events, ends, made, last)


def _market(symbols: int, minutes: int) -> RandomMarket:
    return RandomMarket(symbols, seed=1, start=START, end=START + timedelta(minutes=minutes))


def _events(channel: str, minute: Minute, encoder: Encoder) -> list[Event]:
    events = encoder.encode(minute)
    if channel == "AM":
        return list(events)
    return Tape(minute.bars, events, seed=0, regular=True).ticks(0, 60_000, {channel: None})


class Server:
    """The process that sends."""

    def __init__(self, folder: Path, what: Stream) -> None:
        path = folder / "frames"
        path.write_bytes(what.data)
        self._process = _process("bench_feed_server.py", path)
        self.port = int(self._line())

    def await_client(self) -> None:
        assert self._line() == "ready"

    def send(self, begin: int, end: int) -> float:
        """When sending began."""
        self._tell(f"{begin} {end}")
        return float(self._line())

    def end_connection(self) -> None:
        self._tell("next")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@contextmanager
def serving(folder: Path, what: Stream) -> Iterator[Server]:
    server = Server(folder, what)
    try:
        yield server
    finally:
        server.stop()


def theirs(server: Server, what: Stream) -> float:
    """Seconds in which the vendor's client has received everything."""
    client = _process("bench_feed_client.py", server.port, what.channel, what.events)
    try:
        server.await_client()
        began = server.send(0, len(what.data))
        assert client.stdout
        return float(client.stdout.readline()) - began
    finally:
        client.kill()
        client.wait()
        server.end_connection()


@contextmanager
def ingesting(server: Server, url: str, folder: Path, *options: str) -> Iterator[Program]:
    ingest = Program(
        folder,
        *("ingest", "--symbols", "*", *options),
        TICKSTOCK_FEED_URL=f"ws://127.0.0.1:{server.port}/stocks",
        TICKSTOCK_DATABASE_URL=url,
        MASSIVE_API_KEY="bench",
    )
    try:
        server.await_client()
        yield ingest
    finally:
        ingest.stop()
        server.end_connection()


def ours(
    server: Server, url: str, what: Stream, folder: Path, *options: str
) -> tuple[float, float]:
    """Seconds in which tickstock has committed everything, and its peak memory.

    Raises MissingError if not every bar is there then.
    """
    with (
        ingesting(server, url, folder, "--channel", what.channel, *options) as ingest,
        connect(url, program="bench") as conn,
    ):
        began = server.send(0, len(what.data))
        committed = _when_stored(conn, what.bars)
        if "--store-ticks" in options:
            while not fetch_value(conn, LAST_TICK, *what.last):
                time.sleep(0.02)
            committed = time.monotonic()
            if fetch_value(conn, "select count(*) from ticks") != what.events:
                raise MissingError("not every trade is stored")
        _check(conn, what)
        return committed - began, ingest.memory()


def throughput(
    dsn: str, folder: Path, what: Stream, rounds: int, options: tuple[str, ...] = ()
) -> Row:
    """One line; the median of each side's rounds, which take turns."""
    receive, store = [], []
    with serving(folder, what) as server:
        for _ in range(rounds):
            receive.append(theirs(server, what))
            with database(dsn, "feed") as url:
                store.append(ours(server, url, what, folder, *options))
    received = what.events / Latencies(receive).median
    stored = what.events / Latencies([seconds for seconds, _ in store]).median
    memory = max(megabytes for _, megabytes in store)
    name = " ".join([what.channel, *options])
    return Row(
        f"{name}: {what.events:,} events, {what.bars:,} bars stored; peak memory {memory:.0f} MB",
        f"{stored:,.0f}/s",
        must("1.0 of theirs", stored >= received),
        f"{stored / received:.2f} of {received:,.0f}/s received by the vendor's client",
    )


def raw_copy(dsn: str, symbols: int, minutes: int, rounds: int) -> Row:
    """What the database itself can take: the bars of AM by one COPY, without the table's triggers."""
    bars = [bar for minute in _market(symbols, minutes).minutes() for bar in minute.bars]
    text = "".join(map(_copy_line, bars))
    times = []
    for _ in range(rounds):
        with database(dsn, "feed") as url, connect(url, program="bench") as conn:
            conn.execute("drop trigger after_insert on ohlcv_1min")
            began = time.monotonic()
            with conn.cursor().copy(COPY) as copy:
                copy.write(text)
            times.append(time.monotonic() - began)
    return Row(
        f"instead of AM: raw COPY of the {len(bars):,} bars, nothing received or parsed, no triggers",
        f"{len(bars) / Latencies(times).median:,.0f}/s",
    )


def _copy_line(bar: Bar) -> str:
    return "\t".join(map(str, bar[:-1])) + "\n"


def minute_by_minute(dsn: str, folder: Path, what: Stream, symbols: int) -> list[Row]:
    """Each minute at once, the next when it is committed: how long it takes, and how much memory."""
    times = []
    with (
        serving(folder, what) as server,
        database(dsn, "feed") as url,
        ingesting(server, url, folder, "--channel", what.channel) as ingest,
        connect(url, program="bench") as conn,
    ):
        begin = done = 0
        for end, wanted in zip(what.ends, what.stored, strict=True):
            began = server.send(begin, end)
            committed = _when_stored(conn, wanted)
            if wanted > done:
                times.append(committed - began)
            begin, done = end, wanted
        _check(conn, what)
        peak = ingest.memory()
    name = f"{what.channel}, {symbols:,} symbols a minute, {len(what.ends)} minutes"
    latencies = Latencies(times)
    rows = [Row(f"{name}: peak memory", f"{peak:.0f} MB", _below(MEMORY_LIMIT, "MB", peak))]
    if what.channel == "AM":
        limit = _below(BURST_LIMIT, "s", latencies.worst)
        rows.insert(0, Row(f"{name}: received to committed", str(latencies), limit))
    return rows


def _when_stored(conn: Conn, bars: int) -> float:
    """When so many bars were committed: told by the database, as asking again and again costs it time."""
    conn.execute("listen tickstock_bars")
    deadline = time.monotonic() + PATIENCE
    while fetch_value(conn, BARS) < bars:
        if time.monotonic() > deadline:
            raise MissingError(f"not everything is stored within {PATIENCE:.0f} s")
        for _ in conn.notifies(timeout=1.0, stop_after=1):
            pass
    return time.monotonic()


def _check(conn: Conn, what: Stream) -> None:
    stored = fetch_value(conn, "select count(*) from ohlcv_1min")
    if stored != what.bars:
        raise MissingError(f"{what.channel}: {stored} bars are stored of {what.bars}")


def _below(limit: float, unit: str, reached: float) -> str:
    return must(f"< {limit:g} {unit}", reached < limit)


def _process(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@click.command()
@engine_option
@click.option("--symbols", default=10_000, show_default=True, help="Symbols of a minute's burst.")
@click.option("--minutes", default=20, show_default=True, help="Minutes of AM.")
@click.option("--tick-symbols", default=1_000, show_default=True, help="Symbols of A and T.")
@click.option("--tick-minutes", default=8, show_default=True, help="Minutes of A and T.")
@click.option(
    "--rounds", default=3, show_default=True, help="Runs of each side; the median counts."
)
def main(
    engines: tuple[str, ...],
    symbols: int,
    minutes: int,
    tick_symbols: int,
    tick_minutes: int,
    rounds: int,
) -> None:
    """Measure ingest beside the vendor's Python client, on every engine that this machine has.

    The bench fails if not everything that was sent is stored.
    """
    console = make_console()
    bars = stream("AM", symbols, minutes)
    seconds = stream("A", tick_symbols, tick_minutes)
    trades = stream("T", tick_symbols, tick_minutes)
    few_trades = stream("T", symbols, 18, trades=4)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for installation in installations(engines):
            console.rule(str(installation), align="left")
            with running(installation) as dsn:
                rows = [throughput(dsn, folder, what, rounds) for what in (bars, seconds, trades)]
                rows.insert(1, raw_copy(dsn, symbols, minutes, rounds))
                rows.append(throughput(dsn, folder, trades, rounds, ("--store-ticks",)))
                show(console, "Stored, and received by the vendor's client", rows)
                rows = minute_by_minute(dsn, folder, bars, symbols)
                rows += minute_by_minute(dsn, folder, few_trades, symbols)
                show(console, "Minute by minute", rows)


if __name__ == "__main__":
    main()
