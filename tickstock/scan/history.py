"""Scanning history: what live scanning would have found in it.

Few candles of many symbols are judged together, many candles of one symbol in pieces: each time about as
many as the memory holds easily, with the events in them. What is judged at once is one transaction.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value
from tickstock.scan.scanner import Scanned, Scanner
from tickstock.scan.windows import Span, Windows, complete_up_to, read_series, windows_of

MINUTES = 50_000
"""Of all symbols judged together: years of minutes, and the events in them, would fill the memory."""
SYMBOLS = 10
"""So many are judged together at most: while their events are recorded, live scanners wait with theirs."""
PIECES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30}
"""Timeframes of which a long history is judged in pieces, and their minutes. Longer candles are few."""
INSTANT = timedelta(microseconds=1)

# In one order, so that no two wait for each other.
LOCK_SHARDS = """
select from tickstock.scan_shards
where shard in (select tickstock.shard_of(s) from unnest(%s::text[]) s) order by shard for no key update
"""
# Those, too, whose bars are gone: their events are to be taken back.
SYMBOLS_BETWEEN = """
select symbol from ohlcv_4hour where ts > %(since)s::timestamptz - interval '4 hours' and ts < %(until)s
union select symbol from events where ts >= %(since)s and ts < %(until)s and retracted_at is null
order by symbol
"""
# Before all their candles and events: a candle begins less than 32 days before its first bar.
FIRST = """
select min(least(candle, event)) - interval '32 days' from unnest(%s::text[]) s (symbol)
cross join lateral (select min(c.ts) from ohlcv_4hour c where c.symbol = s.symbol) c (candle)
cross join lateral (select min(e.ts) from events e where e.symbol = s.symbol) e (event)
"""


class History(NamedTuple):
    """Complete candles of these timeframes that begin at or after `since` and before `until`, UTC."""

    since: datetime
    until: datetime
    timeframes: Sequence[str]


def symbols_between(conn: Connection[TupleRow], since: datetime, until: datetime) -> list[str]:
    """Symbols that have bars in this time, or events that stand."""
    asked = {"since": since, "until": until}
    return [symbol for (symbol,) in conn.execute(SYMBOLS_BETWEEN, asked)]


class HistoryScan:
    """Judges a history; each scanner in a session, all but the first in a thread of its own."""

    def __init__(
        self,
        url: str,
        scanners: Sequence[Scanner],
        history: History,
        *,
        stop: threading.Event,
        progress: Callable[[int], None],
    ) -> None:
        """stop: set, the scan ends after the pieces that are being judged; a scanner that fails sets it, too.

        progress: called with a number of symbols that are done, by one thread at a time.
        """
        self._url = url
        self._scanners = scanners
        self._history = history
        self._stop = stop
        self._progress = progress
        self._waiting: SimpleQueue[Sequence[str]] = SimpleQueue()
        self._scanned = Scanned()
        self._counting = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self, symbols: Sequence[str]) -> Scanned:
        """Of these symbols. Raises what a scanner has failed with."""
        for some in _together(symbols, self._time()):
            self._waiting.put(some)
        beside = [
            threading.Thread(target=self._scan, args=(scanner,), name="scan", daemon=True)
            for scanner in self._scanners[1 : self._waiting.qsize()]
        ]
        for thread in beside:
            thread.start()
        self._scan(self._scanners[0])
        for thread in beside:
            thread.join()
        if self._failures:
            raise self._failures[0]
        return self._scanned

    def _time(self) -> timedelta:
        """How long the history is, so far."""
        with connect(self._url, program="scan") as conn:
            clock = fetch_value(conn, "select latest_minute()") or self._history.until
        return min(clock, self._history.until) - self._history.since

    def _scan(self, scanner: Scanner) -> None:
        try:
            with connect(self._url, program="scan") as conn, suppress(Empty):
                while not self._stop.is_set():
                    some = self._waiting.get_nowait()
                    self._count(some, scan_together(conn, scanner, some, self._history, self._stop))
        except Exception as error:
            self._failures.append(error)
            self._stop.set()

    def _count(self, some: Sequence[str], scanned: Scanned) -> None:
        with self._counting:
            self._scanned = self._scanned.plus(scanned)
            self._progress(len(some))


def scan_together(
    conn: Connection[TupleRow],
    scanner: Scanner,
    symbols: Sequence[str],
    history: History,
    stop: threading.Event | None = None,
) -> Scanned:
    """Judge the history of these symbols, each piece of it in a transaction.

    stop: set, it ends this after a piece.
    """
    total, since = Scanned(), history.since
    if history.until - since > _piece(symbols):  # there is nothing to be judged before the first
        since = max(since, fetch_value(conn, FIRST, list(symbols)) or history.until)
    begins = dict.fromkeys(history.timeframes, since)
    while begins and not (stop and stop.is_set()):
        with conn.transaction():
            scanned, begins = _scan_pieces(conn, scanner, symbols, begins, history.until)
        total = total.plus(scanned)
    return total


def _together(symbols: Sequence[str], time: timedelta) -> Iterator[Sequence[str]]:
    """As many at once as have few enough candles in so much time."""
    minutes = max(1, time // timedelta(minutes=1))
    size = max(1, min(SYMBOLS, MINUTES // minutes))
    for begin in range(0, len(symbols), size):
        yield symbols[begin : begin + size]


def _piece(symbols: Sequence[str], minutes: int = 1) -> timedelta:
    """So long is a piece of their candles of so many minutes."""
    return timedelta(minutes=minutes * MINUTES) / len(symbols)


def _scan_pieces(
    conn: Connection[TupleRow],
    scanner: Scanner,
    symbols: Sequence[str],
    begins: Mapping[str, datetime],
    until: datetime,
) -> tuple[Scanned, dict[str, datetime]]:
    """Of each of these timeframes the piece that begins then; and when the next ones begin."""
    conn.execute(LOCK_SHARDS, (list(symbols),))
    complete = complete_up_to(conn, symbols)
    spans: dict[str, list[Span]] = {}
    following = {}
    for timeframe, begin in begins.items():
        ends = {
            symbol: min(until - INSTANT, complete[symbol].get(timeframe, begin - INSTANT))
            for symbol in symbols
        }
        piece = _piece(symbols, PIECES[timeframe]) if timeframe in PIECES else None
        if piece and max(ends.values()) - begin >= piece:
            following[timeframe] = begin + piece
            ends = {symbol: min(end, begin + piece - INSTANT) for symbol, end in ends.items()}
        some = [Span(symbol, begin, end) for symbol, end in ends.items() if begin <= end]
        if some:
            spans[timeframe] = some

    def read(
        conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
    ) -> Windows:
        # What follows is judged in the next piece.
        after = 0 if timeframe in following else reach
        return windows_of(read_series(conn, timeframe, spans, reach=reach, after=after))

    recorded = scanner.judge(conn, spans, read)
    return Scanned(recorded.candles, recorded.made, recorded.retracted), following
