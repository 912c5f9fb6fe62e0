"""Windows kept from scan to scan: of these only the candles that are new are read.

A scanner learns of every change of what it keeps. Bars that come by the scan queue are taken by it or,
which a share's counter tells, by another one; of those that pass the queue by there is a note. A window
lacks what waits in the queue: when that is taken, the candles that look back at it are judged again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.patterns import Floats
from tickstock.scan.windows import Series, Span, float_arrays, read_series

TIMEFRAMES = ("1min", "5min")
"""Of which windows are kept: the longer ones come seldom, and would take as much memory each."""
LONGEST = 200
"""Candles before the judged one, with which windows are kept: some 10 kB each, of thousands of symbols."""
STATE = "select changes, taken, shards from tickstock.state_of_shares(%s)"
FRESH = {
    timeframe: sql.SQL("select * from tickstock.{}(%s, %s, %s)").format(
        sql.Identifier(f"fresh_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}


@dataclass
class _Share:
    """What is kept of a share of the symbols. Used by the thread alone that holds the share's row."""

    taken: int
    """Its counter when it was left."""
    changes: str
    """Which changes past the queue the windows know of."""
    windows: dict[tuple[str, int], dict[str, Floats]] = field(default_factory=dict)
    """By timeframe and reach, and by symbol: (6, candles), the columns of a Series. So many as the reach,
    or all that there are; the last one is the last that was judged."""


class KeptWindows:
    """The windows of one scanner, between the beginning and the end of its transactions.

    Scanners of one program, each in a thread, may share theirs.
    """

    def __init__(self, shared: "KeptWindows | None" = None) -> None:
        self._shares: dict[int, _Share] = shared._shares if shared else {}
        self._share_of: dict[str, int] = shared._share_of if shared else {}
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

    def read(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
    ) -> list[Series]:
        """As read_series(); but a span after its window is read without candles after it, of which none
        has been judged: they wait in the queue."""
        if timeframe not in TIMEFRAMES or reach > LONGEST:
            return list(read_series(conn, timeframe, spans, reach=reach))
        times = Counter(span.symbol for span in spans)
        grown: list[Span] = []
        anew: list[Span] = []
        for span in spans:
            window = self._window(timeframe, span.symbol, reach)
            follows = window is not None and window[0, -1] < span.since.timestamp()
            (grown if follows and times[span.symbol] == 1 else anew).append(span)
        found = self._grow(conn, timeframe, grown, reach)
        if found is None:  # bars have just changed past the queue
            found, anew = [], list(spans)
        for each in read_series(conn, timeframe, anew, reach=reach):
            found.append(each)
            self._keep(timeframe, each, reach)
        return found

    def _check(self, changes: str) -> None:
        for number, taken in self._taken.items():
            share = self._shares.get(number)
            if share is None or (share.taken, share.changes) != (taken - 1, changes):
                self._shares[number] = _Share(taken - 1, changes)

    def _windows(self, timeframe: str, symbol: str, reach: int) -> dict[str, Floats]:
        windows = self._shares[self._share_of[symbol]].windows
        if (timeframe, reach) not in windows:
            for other in [key for key in windows if key[0] == timeframe]:
                del windows[other]  # patterns have been set otherwise
            windows[timeframe, reach] = {}
        return windows[timeframe, reach]

    def _window(self, timeframe: str, symbol: str, reach: int) -> Floats | None:
        return self._windows(timeframe, symbol, reach).get(symbol)

    def _keep(self, timeframe: str, series: Series, reach: int) -> None:
        """Unless candles after what was asked about were judged as well: the last one judged must be the
        last there is, so that what comes after it has nothing after itself."""
        windows = self._windows(timeframe, series.symbol, reach)
        windows.pop(series.symbol, None)
        if len(series.ts) and not series.beyond:
            windows[series.symbol] = series.columns[:, -max(1, reach) :].copy()

    def _grow(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], reach: int
    ) -> list[Series] | None:
        """None if what is kept turns out to be no longer right."""
        if not spans:
            return []
        windows = [self._windows(timeframe, span.symbol, reach) for span in spans]
        before = [some[span.symbol] for some, span in zip(windows, spans, strict=True)]
        symbols, _, until = (list(column) for column in zip(*spans, strict=True))
        last = [float(window[0, -1]) for window in before]
        with float_arrays(conn) as cursor:
            cursor.execute(FRESH[timeframe], (symbols, last, until))
            changes, nth, *columns, prices = cursor.fetchone() or ("", None, None)
        states = {share.changes for share in map(self._shares.__getitem__, self._taken)}
        if states != {changes}:
            self._check(changes)
            return None
        if nth is None:
            nth, columns = np.empty(0), [np.empty(0)] * 6
        edges = np.searchsorted(nth, np.arange(1, len(spans) + 2)).tolist()
        fresh, told = np.stack(columns), (prices or "").split(" ")
        found = []
        for span, some, window, begin, end in zip(
            spans, windows, before, edges[:-1], edges[1:], strict=True
        ):
            both = np.concatenate((window, fresh[:, begin:end]), axis=1)
            some[span.symbol] = both[:, -max(1, reach) :]
            first = int(np.searchsorted(both[0], span.since.timestamp()))
            since = max(0, first - reach)
            asked = told[begin + first - window.shape[1] : end]
            found.append(Series(span, both[:, since:], first - since, asked))
        return found
