"""Whatever the order in which bars come, however often they are corrected and scanners die: in the end
the events that stand are those of a scan of the final bars."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.e2e.program import DEADLINE, run
from tests.scan.support import bar, drain, firing, new_york, on_one_engine, signalling, write
from tickstock.bars import Bar
from tickstock.db.connection import connect
from tickstock.patterns import discover
from tickstock.scan.history import History, HistoryScan, scan_together, symbols_between
from tickstock.scan.judge import Judged
from tickstock.scan.record import Recorded
from tickstock.scan.scanner import Scanner
from tickstock.scan.windows import Reader, Span
from tickstock.simulator import RandomMarket
from tickstock.timeframes import TIMEFRAMES

STANDING = """
select pattern, symbol, timeframe, ts, direction, price, strength, details, parameters, candles_from
from events where retracted_at is null and symbol <> 'CLOCK' order by 1, 2, 3, 4
"""
BEGIN, END = new_york("2025-11-26 09:00"), new_york("2025-12-01 16:30")
SINCE, UNTIL = new_york("2025-11-01 00:00"), new_york("2026-02-01 00:00")


class MishapError(Exception):
    """What goes wrong after everything went well."""


def market(seed: int) -> list[Bar]:
    """Three symbols around a holiday and a half day, with hours in which little happens."""
    rng = random.Random(seed)
    found = []
    day = BEGIN
    while day < END:
        for begins, hours in ((day, 2), (day + timedelta(hours=3), 1.5)):
            some = RandomMarket(3, seed=seed, start=begins, end=begins + timedelta(hours=hours))
            found += [each for minute in some.minutes() for each in minute.bars]
        day += timedelta(days=1)
    return [each for each in found if rng.random() < 0.9]


def arrivals(bars: list[Bar], rng: random.Random) -> Iterator[list[Bar]]:
    """The bars in batches, most of them about in order; some wrong at first and corrected later."""
    order = []
    for number, each in enumerate(bars):
        late = rng.choice((0, 0, 0, 0, 0, 5, 300, 3000))
        order.append((number + rng.random() * late, each))
        if rng.random() < 0.03:
            wrong = each._replace(high=each.high * 2, close=each.high * 2, volume=each.volume * 9)
            order.append((number - rng.random() * 50, wrong))
    order.sort(key=lambda item: item[0])
    arrived = [each for _, each in order]
    # Of two versions the right one must come last.
    right = {(each.symbol, each.ts): each for each in bars}
    while arrived:
        size = rng.choice((1, 3, 10, 40, 200))
        yield arrived[:size]
        del arrived[:size]
    yield list(right.values())


def scanned_live(
    conn: Connection[TupleRow], bars: list[Bar], after: Bar | None, rng: random.Random
) -> int:
    """How many events were retracted on the way."""
    scanner = Scanner(discover())
    extra = bar("AAPL", BEGIN + timedelta(minutes=45, days=1), "500")
    write(conn, extra)
    for batch in arrivals(bars, rng):
        write(conn, *batch)
        roll = rng.random()
        if roll < 0.2:
            try:
                with conn.transaction():
                    scanner.scan(conn, most=rng.choice((5, 100, 1_000)))
                    raise MishapError
            except MishapError:
                scanner = Scanner(discover())
        elif roll < 0.7:
            scanner.scan(conn, most=rng.choice((5, 100, 1_000)))
    conn.execute(
        "delete from ohlcv_1min where symbol = %s and ts = %s and close = 500",
        (extra.symbol, extra.ts),
    )
    if after:
        write(conn, after)
    drain(conn, scanner)
    row = conn.execute("select count(*) from events where retracted_at is not null").fetchone()
    assert row is not None
    return int(row[0])


def scanned_at_once(engine: Engine, bars: list[Bar], until: datetime) -> list[TupleRow]:
    url = engine.clone()
    try:
        with connect(url, program="test") as conn:
            conn.execute("set tickstock.scan_queue = off")
            write(conn, *bars)
            conn.execute("call ohlcv_refresh()")
            scanner = Scanner(discover())
            symbols = symbols_between(conn, SINCE, until)
            scan_together(conn, scanner, symbols, History(SINCE, until, TIMEFRAMES))
            return conn.execute(STANDING).fetchall()
    finally:
        engine.drop(url)


@pytest.mark.parametrize("after", [bar("CLOCK", UNTIL - timedelta(days=1)), None])
@pytest.mark.parametrize("seed", [1])
def test_live_scanning_ends_with_the_events_of_a_batch(
    engine: Engine, conn: Connection[TupleRow], seed: int, after: Bar | None
) -> None:
    """Whether the feed has gone on since, or its last minute is theirs."""
    bars = market(seed)
    retracted = scanned_live(conn, bars, after, random.Random(seed))
    live = conn.execute(STANDING).fetchall()
    batch = scanned_at_once(engine, [*bars, *filter(None, [after])], UNTIL)
    assert retracted > 20, "corrections have taken events back"
    assert len({row[0] for row in batch}) > 40, "many patterns"
    assert {row[2] for row in batch} >= set(TIMEFRAMES) - {"weekly", "monthly"}
    assert set(map(str, live)) - set(map(str, batch)) == set()
    assert set(map(str, batch)) - set(map(str, live)) == set()


@on_one_engine
def test_events_of_a_symbol_whose_bars_are_gone_are_taken_back(
    conn: Connection[TupleRow], url: str
) -> None:
    scanner, next_day = Scanner([signalling()]), BEGIN + timedelta(days=1)
    write(conn, bar("GONE", BEGIN), bar("LATER", next_day), bar("THERE", BEGIN))
    write(conn, bar("CLOCK", next_day + timedelta(minutes=1)))
    drain(conn, scanner)
    conn.execute("set tickstock.scan_queue = off")
    conn.execute("delete from ohlcv_1min where symbol in ('GONE', 'LATER')")
    day = f"{BEGIN:%Y-%m-%d}"
    last = "select symbol from events where retracted_at is null and pattern = 'Always' order by 1"
    done = run("scan", "--from", day, "--to", day, TICKSTOCK_DATABASE_URL=url)
    assert "candles of 2 symbols scanned" in done.stdout
    assert conn.execute(STANDING).fetchall(), "of patterns that this scanner does not know"
    hour = History(BEGIN, BEGIN + timedelta(hours=1), TIMEFRAMES)
    scan_together(conn, scanner, symbols_between(conn, hour.since, hour.until), hour)
    assert conn.execute(last).fetchall() == [("CLOCK",), ("LATER",), ("THERE",)]
    done = run("scan", "--from", day, "--to", "9999-12-31", TICKSTOCK_DATABASE_URL=url)
    assert done.returncode == 0
    for symbol, code in (("GONE", 0), ("clock", 1)):
        done = run("scan", "--from", day, "--symbol", symbol, TICKSTOCK_DATABASE_URL=url)
        assert done.returncode == code
        assert (f"no candles of {symbol!r}: " in done.stderr) == bool(code)
    assert "did you mean CLOCK?" in done.stderr


def test_events_outlive_the_bars_that_made_them(conn: Connection[TupleRow]) -> None:
    """Those of minutes at the border, too, which a scan would judge by the bars that are left."""
    timeframes = ("1min", "5min")
    full = firing("Full", lambda c: c.close[0] > 0, timeframes=timeframes, candles=3)
    scanner = Scanner([full, signalling("Any", timeframes, candles=3)])
    border = datetime(2025, 11, 6, tzinfo=UTC)
    minutes = [border + timedelta(minutes=number) for number in range(-20, 10)]
    write(conn, *(bar("A", ts) for ts in minutes), bar("A", border + timedelta(days=10)))
    drain(conn, scanner)
    before = conn.execute(STANDING).fetchall()
    assert len(before) > 60
    conn.execute("call drop_bars(%s)", (border,))
    scan_together(conn, scanner, ["A"], History(minutes[0], minutes[-1], TIMEFRAMES))
    write(conn, bar("A", border, volume=7))
    drain(conn, scanner)
    assert conn.execute(STANDING).fetchall() == before


class Counting(Scanner):
    """Notes how many candles it has judged at once."""

    def __init__(self) -> None:
        super().__init__(discover())
        self.at_once: list[int] = []

    def _record(self, conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
        self.at_once.append(sum(each.candles for each in judged if each.timeframe == "1min"))
        return super()._record(conn, judged)


@on_one_engine
def test_a_long_history_is_judged_in_pieces(
    conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that years of minutes need no more memory than months, and find the same."""
    conn.execute("set tickstock.scan_queue = off")
    write(conn, *market(1))
    history = History(SINCE, new_york("2025-12-01 10:00"), TIMEFRAMES)
    symbols = symbols_between(conn, history.since, history.until)
    whole, pieces = Counting(), Counting()
    scanned = [scan_together(conn, whole, symbols, history)]
    expected = conn.execute(STANDING).fetchall()
    conn.execute("truncate events")
    monkeypatch.setattr("tickstock.scan.history.MINUTES", len(symbols) * 60)
    scanned.append(scan_together(conn, pieces, symbols, history))
    assert conn.execute(STANDING).fetchall() == expected
    assert scanned[0] == scanned[1]
    assert sum(pieces.at_once) == sum(whole.at_once) > 600
    assert sorted(pieces.at_once)[-2] <= len(symbols) * 60, (
        "the last piece, and what looks back at it"
    )


class Meeting(Scanner):
    """Begins when as many others have begun; then it does what it is told to do."""

    def __init__(self, all_: threading.Barrier, then: Callable[[], object]) -> None:
        super().__init__(discover())
        self._all = all_
        self._then = then
        self._met = False

    def judge(
        self, conn: Connection[TupleRow], spans: Mapping[str, Sequence[Span]], read: Reader
    ) -> Recorded:
        if not self._met:
            self._met = True
            self._all.wait(DEADLINE)
            self._then()
        return super().judge(conn, spans, read)


@on_one_engine
def test_a_history_is_the_same_by_two_scanners(
    conn: Connection[TupleRow], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("set tickstock.scan_queue = off")
    write(conn, *market(1))
    history = History(new_york("2025-11-20 00:00"), new_york("2025-12-01 10:00"), TIMEFRAMES)
    symbols = symbols_between(conn, history.since, history.until)
    scanned = scan_together(conn, Scanner(discover()), symbols, history)
    expected = conn.execute(STANDING).fetchall()
    conn.execute("truncate events")

    monkeypatch.setattr("tickstock.scan.history.SYMBOLS", 1)
    both, told = threading.Barrier(2), list[int]()
    scanners = [Meeting(both, lambda: None) for _ in range(2)]
    scan = HistoryScan(url, scanners, history, stop=threading.Event(), progress=told.append)
    assert scan.run(symbols) == scanned
    assert conn.execute(STANDING).fetchall() == expected
    assert told == len(symbols) * [1]


@on_one_engine
def test_a_scanner_that_fails_ends_the_scan_of_a_history(
    conn: Connection[TupleRow], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn.execute("set tickstock.scan_queue = off")
    write(conn, *(bar(symbol, BEGIN) for symbol in "ABCD"))
    history = History(BEGIN, BEGIN + timedelta(days=1), TIMEFRAMES)
    monkeypatch.setattr("tickstock.scan.history.SYMBOLS", 1)
    both, stop, told = threading.Barrier(2), threading.Event(), list[int]()

    def fail() -> None:
        raise RuntimeError("it fails")

    scanners = [Meeting(both, lambda: stop.wait(DEADLINE)), Meeting(both, fail)]
    scan = HistoryScan(url, scanners, history, stop=stop, progress=told.append)
    with pytest.raises(RuntimeError, match="it fails"):
        scan.run("ABCD")
    assert told == [1], "what the other one was at is done, and no more"
