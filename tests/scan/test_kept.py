"""Windows kept from scan to scan are those that a plain query gives, whatever has changed meanwhile."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import (
    Recorder,
    Window,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    write,
)
from tests.scan.test_windows import directly, rows_of
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.patterns import PythonPattern
from tickstock.scan.kept import LONGEST, KeptWindows
from tickstock.scan.scanner import Scanner
from tickstock.scan.windows import Series, Span

LENGTH = 6
KEPT = ("1min", "5min", "15min", "1hour", "daily")
SYMBOLS = ("A", "B", "C", "D")
MINUTE = timedelta(minutes=1)
CHANGES = "select changes from tickstock.state_of_shares('{}')"
BEGIN = new_york("2025-11-24 09:30")


class MishapError(Exception):
    """What goes wrong after a scan."""


class Story:
    """Two scanners that share the work, and what is written meanwhile."""

    def __init__(self, conn: Connection[TupleRow], seed: int) -> None:
        self.conn = conn
        self.random = random.Random(seed)
        self.now = BEGIN
        self.windows: list[Window] = []
        self.scanners = [Recorder(LENGTH, KEPT), Recorder(LENGTH, KEPT)]
        for scanner in self.scanners:
            scanner.windows = self.windows  # in the order in which they judge

    def some_bar(self, ts: datetime) -> Bar:
        price, volume = self.random.randint(1_000, 9_999), self.random.randint(1, 999)
        return bar(self.random.choice(SYMBOLS), ts, f"{price / 100}", volume)

    def next_minute(self) -> None:
        # Now and then to the next quarter of an hour, hour or morning.
        self.now += MINUTE * self.random.choice((1, 1, 1, 1, 1, 7, 15, 60, 1_000))
        bars = [self.some_bar(self.now) for _ in range(3)]
        write(self.conn, *{each.symbol: each for each in bars}.values())

    def an_old_bar(self) -> None:
        """New, or in place of another one."""
        write(self.conn, self.some_bar(self.now - self.random.randint(1, 12) * MINUTE))

    def a_bar_less(self) -> None:
        self.conn.execute(
            "delete from ohlcv_1min where symbol = %s and ts = %s",
            (self.random.choice(SYMBOLS), self.now - self.random.randint(0, 9) * MINUTE),
        )

    def past_the_queue(self, change: Callable[[], None]) -> None:
        self.conn.execute("set tickstock.scan_queue = off")
        change()
        self.conn.execute("reset tickstock.scan_queue")

    def refresh(self) -> None:
        self.conn.execute("call ohlcv_refresh()")

    def scan(self) -> None:
        if self.random.random() < 0.2:
            self.scanners.reverse()  # the other one goes on
        scanner, most = self.scanners[0], self.random.choice((1, 3, 1_000, 1_000))
        if self.random.random() > 0.1:
            scanner.scan(self.conn, most=most)
            return
        known = len(self.windows)
        with suppress(MishapError), self.conn.transaction():
            scanner.scan(self.conn, most=most)
            raise MishapError
        del self.windows[known:]

    def drain(self) -> list[Window]:
        """Scan all that there is; the last window of each candle judged since the drain before."""
        self.now += self.random.randint(0, 5) * MINUTE
        self.now += timedelta(days=2) - timedelta(minutes=self.now.minute % 5)
        write(self.conn, bar("CLOCK", self.now))
        drain(self.conn, self.scanners[0], most=self.random.choice((3, 1_000)))
        last = {window.candle: window for window in self.windows if window.symbol != "CLOCK"}
        self.windows.clear()
        return list(last.values())


@pytest.mark.parametrize("seed", [1])
def test_they_follow_every_change(conn: Connection[TupleRow], seed: int) -> None:
    story = Story(conn, seed)
    rng = story.random
    judged = 0
    for _ in range(12):
        if rng.random() < 0.3:
            story.past_the_queue(rng.choice((story.an_old_bar, story.a_bar_less)))
        for _ in range(rng.randint(3, 12)):
            story.next_minute()
            if rng.random() < 0.3:
                rng.choice((story.an_old_bar, story.a_bar_less, story.refresh))()
            if rng.random() < 0.8:
                story.scan()
        for window in story.drain():
            expected = directly(conn, window, LENGTH)
            if expected and expected[-1][0] == window.ts[-1]:  # it has not been deleted since
                assert rows_of(window) == expected, window
                judged += 1
    assert judged > 200


def check(conn: Connection[TupleRow], window: Window) -> None:
    """It is as if it had been read from the table now."""
    assert rows_of(window) == directly(conn, window, 3), window


def minute(number: int) -> Bar:
    return bar("A", BEGIN + number * MINUTE, f"{10 + number}")


@on_one_engine
@pytest.mark.parametrize(
    "change",
    [
        b"update ohlcv_1min set volume = 7",
        b"delete from ohlcv_1min where volume = 100",
        b"truncate ohlcv_1min",
        b"insert into ohlcv_1min values ('A', '2025-11-24 14:31Z', 1, 1, 1, 1, 1)",
        b"update trading_days set closes_at = opens_at + interval '1 hour' where day = '2025-11-24'",
    ],
)
def test_what_passes_the_queue_is_seen_in_the_next_window(
    conn: Connection[TupleRow], change: bytes
) -> None:
    scanner = Recorder(3, ["1min"])
    write(conn, minute(0), minute(2))
    drain(conn, scanner)
    before = fetch_value(conn, CHANGES)
    conn.execute("set tickstock.scan_queue = off")
    conn.execute(change)
    conn.execute("reset tickstock.scan_queue")
    assert fetch_value(conn, CHANGES) != before
    write(conn, minute(3))
    scanner.windows.clear()
    drain(conn, scanner)
    (window,) = scanner.windows
    check(conn, window)


@on_one_engine
def test_what_passes_the_queue_within_a_scan_is_seen_in_it(
    conn: Connection[TupleRow], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows by then that nothing had changed so far."""
    scanner = Recorder(3, ["1min"])
    write(conn, minute(0), minute(1))
    drain(conn, scanner)
    begin = KeptWindows.begin

    def begin_and_change(kept: KeptWindows, mine: Connection[TupleRow], symbols: list[str]) -> None:
        begin(kept, mine, symbols)
        with connect(url, program="test") as other:
            other.execute("set tickstock.scan_queue = off")
            other.execute("update ohlcv_1min set volume = 7")

    monkeypatch.setattr(KeptWindows, "begin", begin_and_change)
    write(conn, minute(2))
    assert scanner.scan(conn).candles == 1
    check(conn, scanner.windows[-1])
    assert scanner.windows[-1].volume.tolist() == [7, 7, 7]


@on_one_engine
def test_what_is_dropped_is_in_no_window_any_more(conn: Connection[TupleRow]) -> None:
    scanner = Recorder(3, ["1min"])
    later = 21 * 24 * 60
    write(conn, minute(0), minute(1), minute(later))
    drain(conn, scanner)
    conn.execute("call drop_bars(%s)", (BEGIN + timedelta(days=8),))
    write(conn, minute(later + 1))
    scanner.windows.clear()
    drain(conn, scanner)
    (window,) = scanner.windows
    check(conn, window)


@on_one_engine
def test_what_is_truncated_from_the_queue_is_seen_too(conn: Connection[TupleRow]) -> None:
    scanner = Recorder(3, ["1min"])
    write(conn, minute(0), minute(1))
    drain(conn, scanner)
    write(conn, minute(1)._replace(volume=7))
    conn.execute("truncate tickstock.scan_queue")
    write(conn, minute(2))
    drain(conn, scanner)
    check(conn, scanner.windows[-1])


@on_one_engine
def test_notes_of_changes_are_thinned_and_seen_nevertheless(conn: Connection[TupleRow]) -> None:
    write(conn, minute(0))
    conn.execute("select tickstock.note_unqueued_change() from generate_series(1, 1001)")
    known = [fetch_value(conn, CHANGES)]
    conn.execute("call ohlcv_keep_house()")
    known.append(fetch_value(conn, CHANGES))
    assert fetch_value(conn, "select count(*) from tickstock.unqueued_changes") == 1
    conn.execute("call ohlcv_keep_house()")
    assert known[0] != known[1] == fetch_value(conn, CHANGES)


def starts_of(windows: list[Window]) -> list[int]:
    """Minutes after BEGIN."""
    return [round((window.ts[-1] - BEGIN.timestamp()) / 60) for window in windows]


@on_one_engine
def test_a_scan_that_is_rolled_back_does_not_count(conn: Connection[TupleRow]) -> None:
    one, other = Recorder(3, ["1min"]), Recorder(3, ["1min"])
    write(conn, minute(0), minute(1))
    drain(conn, one)
    write(conn, minute(2))
    with suppress(MishapError), conn.transaction():
        one.scan(conn)
        raise MishapError
    write(conn, minute(1)._replace(volume=7))
    drain(conn, other)
    write(conn, minute(3))
    drain(conn, one)
    check(conn, one.windows[-1])


@on_one_engine
def test_late_bars_one_after_the_other(conn: Connection[TupleRow]) -> None:
    """What looks back at each is judged again, though what is read for the first ends before the second."""
    scanner = Recorder(3, ["1min"])
    write(conn, *map(minute, range(10)))
    drain(conn, scanner)
    for late, then in ((0, [0, 1, 2]), (5, [5, 6, 7]), (9, [9]), (8, [8, 9]), (10, [10])):
        scanner.windows.clear()
        write(conn, minute(late)._replace(volume=7))
        drain(conn, scanner)
        assert starts_of(scanner.windows) == then
        for window in scanner.windows:
            check(conn, window)


@on_one_engine
def test_the_last_bar_of_a_young_symbol_goes_again(conn: Connection[TupleRow]) -> None:
    """What is kept then is shorter than before: nothing of that may be left."""
    scanner = Recorder(6, ["1min"])
    write(conn, *map(minute, range(3)))
    drain(conn, scanner)
    conn.execute("delete from ohlcv_1min where ts = %s", (BEGIN + 2 * MINUTE,))
    drain(conn, scanner)
    write(conn, minute(3))
    drain(conn, scanner)
    assert scanner.windows[-1].close.tolist() == [10, 11, 13]


@on_one_engine
def test_a_late_bar_and_one_days_after_it(conn: Connection[TupleRow]) -> None:
    scanner = Recorder(3, ["1min"])
    write(conn, minute(0), minute(1))
    drain(conn, scanner)
    scanner.windows.clear()
    write(conn, minute(1)._replace(volume=7), minute(7 * 1440))
    drain(conn, scanner)
    assert sorted(starts_of(scanner.windows)) == [1, 7 * 1440], "each once, though it looks back"
    for window in scanner.windows:
        check(conn, window)


@on_one_engine
@pytest.mark.parametrize("timeframe", ["1min", "15min"])
@pytest.mark.parametrize(
    "meanwhile",
    ["false", "true", "pattern = 'Wider'"],
    ids=["nobody asks", "they are too long to be kept", "others are kept"],
)
def test_what_changes_while_patterns_are_set_otherwise_is_seen(
    conn: Connection[TupleRow], timeframe: str, meanwhile: str
) -> None:
    def rising(name: str, candles: int) -> PythonPattern:
        where = lambda c: c.close[-1] > c.close[-3]  # noqa: E731
        return firing(name, where, timeframes=[timeframe], candles=candles)

    width = fetch_value(conn, "select width from timeframes where timeframe = %s", timeframe)
    scanner = Scanner([rising("Rising", 3), rising("Wider", 5), rising("Long", LONGEST + 2)])

    def scan(number: int, close: str = "10") -> None:
        write(conn, bar("A", BEGIN + number * width, close))
        drain(conn, scanner)

    def enable(which: str) -> None:
        conn.execute(f"update patterns set enabled = {which}".encode())

    scan(0)
    enable("pattern = 'Rising'")
    for number in range(1, 7):
        scan(number)
    enable(meanwhile)
    scan(5, "9")
    enable("pattern = 'Rising'")
    for number in range(7, 10):
        scan(number)
    found = "select ts from events where pattern = 'Rising' and retracted_at is null"
    assert conn.execute(found).fetchall() == [(BEGIN + 7 * width,)]


def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """From now on, but of what is kept; the spans that would have been read."""
    read: list[Span] = []

    def nothing(_: object, __: str, spans: list[Span], **___: int) -> Iterator[Series]:
        read.extend(spans)
        return iter(())

    monkeypatch.setattr("tickstock.scan.kept.read_series", nothing)
    return read


@on_one_engine
@pytest.mark.parametrize("length", [LENGTH, LONGEST + 1, LONGEST + 2])
def test_only_what_is_new_is_read(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """But for windows that are too long to be kept of thousands of symbols."""
    scanner = Recorder(length, ["1min"])
    write(conn, *map(minute, range(4)))
    drain(conn, scanner)
    read = nothing_is_read(monkeypatch)
    write(conn, minute(4))
    drain(conn, scanner)
    if length > LONGEST + 1:
        assert read == [Span("A", BEGIN + 4 * MINUTE, BEGIN + 4 * MINUTE)]
    else:
        assert not read
        assert scanner.windows[-1].close.tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("timeframe", ["15min", "30min", "1hour", "4hour", "daily", "weekly"])
def test_only_what_is_new_is_read_of_longer_candles(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch, timeframe: str
) -> None:
    width = fetch_value(conn, "select width from timeframes where timeframe = %s", timeframe)
    scanner = Recorder(LONGEST + 2, [timeframe])
    monday = new_york("2025-11-03 09:30")
    bars = [bar("A", monday + n * width, f"{10 + n}") for n in range(6)]
    write(conn, *bars[:5])
    drain(conn, scanner)
    read = nothing_is_read(monkeypatch)
    scanner.windows.clear()
    write(conn, bars[5])
    drain(conn, scanner)
    assert not read
    assert scanner.windows[-1].close.tolist() == [10, 11, 12, 13, 14]


@on_one_engine
def test_without_room_for_windows_they_are_read(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of two scanners that share theirs, in turn."""
    one = Recorder(3, ["15min"])
    other = Recorder(3, ["15min"], beside=one)
    other.windows = one.windows
    quarters = [bar("A", BEGIN + n * 15 * MINUTE, f"{10 + n}") for n in range(9)]
    write(conn, *quarters[:4])
    drain(conn, one)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("tickstock.scan.shelf.os.pwrite", failing_with(full))
    for number in range(4, 9):
        write(conn, quarters[number])
        drain(conn, (one, other)[number % 2])
        check(conn, one.windows[-1])
    warnings = [record.message for record in caplog.records if "No space left" in record.message]
    assert len(warnings) == 1
    assert "TMPDIR" in warnings[0]


def failing_with(error: Exception) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail
