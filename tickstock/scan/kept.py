"""Windows kept from scan to scan: of these only the candles that are new are read.

A scanner learns of every change of what it keeps. Bars that come by the scan queue are taken by it or,
which a share's counter tells, by another one; of those that pass the queue by there is a note. A window
lacks what waits in the queue: when that is taken, the candles that look back at it are judged again.

Those of minutes and five minutes are kept in memory, the longer ones, which come seldom, on a shelf.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress, groupby

import numpy as np
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.patterns import Floats
from tickstock.scan.arrays import float_arrays
from tickstock.scan.shelf import Shelf, ShelfError
from tickstock.scan.windows import (
    Newest,
    Series,
    Span,
    Windows,
    read_series,
    windows_of,
)
from tickstock.timeframes import TIMEFRAMES

IN_MEMORY = ("1min", "5min")
"""Timeframes whose windows are wanted again within minutes."""
LONGEST = 200
"""Candles before the judged one, with which windows are kept in memory: some 10 kB each, of thousands of
symbols."""
ROOM = 32
"""Symbols for which a share makes room at once: with more of it, more would stay empty."""
STATE = "select changes, taken, shards from tickstock.state_of_shares(%s)"
FRESH = {
    # In binary, which a list of texts is made several times faster.
    timeframe: sql.SQL("select * from tickstock.{}(%b, %s, %s)").format(
        sql.Identifier(f"fresh_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}


class _SideBySide:
    """The windows of some symbols, of one timeframe and reach, and for one share."""

    def __init__(self, reach: int, place: int) -> None:
        """place: of theirs on the shelf."""
        self.columns = np.empty((6, max(1, reach), 0))
        """(6, candles, room): as those of a Series, NaN before a symbol's first candle; the last one is
        the last that was judged."""
        self.places: dict[str, int] = {}
        self._place = place
        self._shelved: tuple[int, ...] | None = None
        """The shape of what lies on the shelf; None while it does not."""

    def take_down(self, shelf: Shelf) -> None:
        """ShelfError if they can't be had."""
        if self._shelved is not None:
            self.columns, self._shelved = shelf.take(self._place, self._shelved), None

    def put_up(self, shelf: Shelf) -> None:
        """Out of memory. ShelfError if there is no room."""
        shelf.put(self._place, self.columns)
        self.columns, self._shelved = np.empty((6, 0, 0)), self.columns.shape

    def keep(self, symbol: str, columns: Floats) -> None:
        """Candles of which the last one is the last that was judged."""
        place = self.places.setdefault(symbol, len(self.places))
        if place == self.columns.shape[2]:
            more = np.full((*self.columns.shape[:2], ROOM), np.nan)
            self.columns = np.concatenate((self.columns, more), axis=2)
        length = self.columns.shape[1]
        self.columns[:, :, place] = np.nan
        latest = columns[:, -length:]
        self.columns[:, length - latest.shape[1] :, place] = latest

    def forget(self, symbol: str) -> None:
        if symbol in self.places:
            self.columns[:, :, self.places[symbol]] = np.nan

    def grow(self, symbols: Sequence[str], candles: Floats) -> Floats:
        """Each by one candle, (6, symbols): the windows with it, (6, candles, symbols)."""
        places = [self.places[symbol] for symbol in symbols]
        grown = np.concatenate((self.columns[:, :, places], candles[:, None]), axis=1)
        self.columns[:, :, places] = grown[:, 1:]
        return grown

    def last(self, symbols: Iterable[str]) -> Floats:
        """(symbols,): start of the last candle judged; NaN where nothing is kept."""
        places = [self.places.get(symbol, -1) for symbol in symbols]
        nothing = np.full((1,), np.nan)
        last: Floats = np.concatenate((self.columns[0, -1], nothing))[places]
        return last

    def of(self, symbol: str) -> Floats:
        """(6, candles): those there are."""
        window = self.columns[:, :, self.places[symbol]]
        return window[:, int(np.isnan(window[0]).sum()) :]


@dataclass
class _Share:
    """What is kept of a share of the symbols. Used by the thread alone that holds the share's row."""

    taken: int
    """Its counter when it was left."""
    changes: str
    """Which changes past the queue the windows know of."""
    windows: dict[tuple[str, int], _SideBySide] = field(default_factory=dict)
    """By timeframe and reach."""


class KeptWindows:
    """The windows of one scanner, between the beginning and the end of its transactions.

    Scanners of one program, each in a thread, may share theirs.
    """

    def __init__(self, shared: "KeptWindows | None" = None) -> None:
        self._shares: dict[int, _Share] = shared._shares if shared else {}
        self._share_of: dict[str, int] = shared._share_of if shared else {}
        self._shelf: Shelf = shared._shelf if shared else Shelf()
        self._taken: dict[int, int] = {}
        """In this transaction, by share: its counter."""

    def begin(self, conn: Connection[TupleRow], symbols: Iterable[str]) -> None:
        """In the transaction that has taken candles of these symbols; what is no longer right goes."""
        symbols = set(symbols)
        new = sorted(symbols - self._share_of.keys())
        changes, taken, shares = conn.execute(STATE, (new,)).fetchone() or ("", [], [])
        self._share_of.update(zip(new, shares or (), strict=True))
        self._taken = {share: taken[share] for share in {self._share_of[s] for s in symbols}}
        self._check(changes)

    def end(self, *, committed: bool) -> None:
        """What others take meanwhile, and what comes of a rollback, shows in the counters."""
        for share, taken in self._taken.items() if committed else ():
            self._shares[share].taken = taken
        self._taken = {}

    def forget(self, timeframe: str) -> None:
        """What is kept of it would not learn of what has been taken in this transaction: nobody asks about
        its candles, or they are read past it."""
        for share in self._taken:
            self._forget(timeframe, share)

    def read(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
    ) -> Windows:
        """As read_windows(); but a span after its window is read without candles after it, of which none
        has been judged: they wait in the queue."""
        if timeframe not in IN_MEMORY:
            return self._read_by_the_shelf(conn, timeframe, spans, reach)
        if reach > LONGEST:
            self.forget(timeframe)
            return windows_of(read_series(conn, timeframe, spans, reach=reach))
        return self._read(conn, timeframe, spans, reach)

    def _read_by_the_shelf(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], reach: int
    ) -> Windows:
        shares = {self._number(span) for span in spans}
        if self._shelf.usable:
            try:
                for share in shares:
                    self._windows(timeframe, share, reach).take_down(self._shelf)
                found = self._read(conn, timeframe, spans, reach)
                for share in shares:
                    self._windows(timeframe, share, reach).put_up(self._shelf)
                return found
            except ShelfError as error:
                self._shelf.give_up(error)
        for share in shares:  # put there by another thread, it would not learn of this reading
            self._forget(timeframe, share)
        return windows_of(read_series(conn, timeframe, spans, reach=reach))

    def _read(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], reach: int
    ) -> Windows:
        spans = sorted(spans, key=self._number)
        times = Counter(span.symbol for span in spans)
        last, since = self._last(timeframe, spans, reach), _seconds(span.since for span in spans)
        follows = (last < since) & [times[span.symbol] == 1 for span in spans]
        grown = list(compress(spans, follows))
        anew = list(compress(spans, ~follows))
        found = self._grow(conn, timeframe, grown, reach, last[follows])
        if found is None:  # bars have just changed past the queue
            found, anew = Windows([], []), spans
        read = list(read_series(conn, timeframe, anew, reach=reach))
        for each in read:
            self._keep(timeframe, each, reach)
        others = windows_of([*found.series, *read])
        return Windows(found.newest + others.newest, others.series)

    def _check(self, changes: str) -> None:
        for number, taken in self._taken.items():
            share = self._shares.get(number)
            if share is None or (share.taken, share.changes) != (taken - 1, changes):
                self._shares[number] = _Share(taken - 1, changes)

    def _number(self, span: Span) -> int:
        """Of its share."""
        return self._share_of[span.symbol]

    def _windows(self, timeframe: str, share: int, reach: int) -> _SideBySide:
        windows = self._shares[share].windows
        if (timeframe, reach) not in windows:
            self._forget(timeframe, share)  # patterns have been set otherwise
            windows[timeframe, reach] = _SideBySide(reach, Shelf.place(share, timeframe))
        return windows[timeframe, reach]

    def _forget(self, timeframe: str, share: int) -> None:
        windows = self._shares[share].windows
        for key in [key for key in windows if key[0] == timeframe]:
            del windows[key]

    def _by_share(
        self, timeframe: str, spans: Iterable[Span], reach: int
    ) -> Iterator[tuple[_SideBySide, list[str]]]:
        """The windows of each share, and the symbols of its spans."""
        for share, some in groupby(spans, self._number):
            yield self._windows(timeframe, share, reach), [span.symbol for span in some]

    def _last(self, timeframe: str, spans: Iterable[Span], reach: int) -> Floats:
        """(spans,): start of the symbol's last candle that was judged; NaN where nothing is kept."""
        by_share = self._by_share(timeframe, spans, reach)
        several = [windows.last(symbols) for windows, symbols in by_share]
        return np.concatenate([*several, np.empty(0)])

    def _keep(self, timeframe: str, series: Series, reach: int) -> None:
        """Unless candles after what was asked about were judged as well: the last one judged must be the
        last there is, so that what comes after it has nothing after itself."""
        windows = self._windows(timeframe, self._number(series.span), reach)
        if len(series.ts) and not series.beyond:
            windows.keep(series.symbol, series.columns)
        else:
            windows.forget(series.symbol)

    def _grow(
        self,
        conn: Connection[TupleRow],
        timeframe: str,
        spans: Sequence[Span],
        reach: int,
        last: Floats,
    ) -> Windows | None:
        """None if what is kept turns out to be no longer right. last: as _last() tells."""
        if not spans:
            return Windows([], [])
        symbols, since, until = (list(column) for column in zip(*spans, strict=True))
        with float_arrays(conn) as cursor:
            cursor.execute(FRESH[timeframe], (symbols, last, _seconds(until)))
            changes, nth, *columns, prices = cursor.fetchone() or ("", None, None)
        states = {share.changes for share in map(self._shares.__getitem__, self._taken)}
        if states != {changes}:
            self._check(changes)
            return None
        if nth is None:
            nth, columns = np.empty(0), [np.empty(0)] * 6
        fresh, told = np.stack(columns), (prices or "").split(" ")
        edges = np.searchsorted(nth, np.arange(1, len(spans) + 2))
        # Nearly always each symbol has one new candle, which is the one asked about.
        by_one = np.diff(edges) == 1
        by_one[by_one] = fresh[0, edges[:-1][by_one]] == _seconds(since)[by_one]
        ones = edges[:-1][by_one]
        newest = self._grow_by_one(
            timeframe, list(compress(spans, by_one)), reach, fresh[:, ones], [told[n] for n in ones]
        )
        series = [
            self._grow_by_some(timeframe, spans[n], reach, fresh[:, begin:end], told[begin:end])
            for n in np.flatnonzero(~by_one).tolist()
            for begin, end in [edges[n : n + 2].tolist()]
        ]
        return Windows([newest] if newest.spans else [], series)

    def _grow_by_one(
        self, timeframe: str, spans: list[Span], reach: int, fresh: Floats, prices: list[str]
    ) -> Newest:
        columns = np.empty((6, reach + 1, len(spans)))
        end = 0
        for windows, symbols in self._by_share(timeframe, spans, reach):
            begin, end = end, end + len(symbols)
            grown = windows.grow(symbols, fresh[:, begin:end])
            columns[:, :, begin:end] = grown[:, -1 - reach :]
        return Newest(spans, columns, prices)

    def _grow_by_some(
        self, timeframe: str, span: Span, reach: int, fresh: Floats, prices: list[str]
    ) -> Series:
        windows = self._windows(timeframe, self._number(span), reach)
        before = windows.of(span.symbol)
        both = np.concatenate((before, fresh), axis=1)
        windows.keep(span.symbol, both)
        first = int(np.searchsorted(both[0], span.since.timestamp()))
        begin = max(0, first - reach)
        return Series(span, both[:, begin:], first - begin, prices[first - before.shape[1] :])


def _seconds(times: Iterable[datetime]) -> Floats:
    return np.array([ts.timestamp() for ts in times])
