"""The feed's ledger as ingest writes it: stretches of the subscription, and minutes that are complete.

Written in the transaction of the bars it tells of, so the two never differ. The tables and what
follows from them are in `sql/objects/30-feed-ledger.sql`.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.ingest.fill import LATE

MINUTE = timedelta(minutes=1)

_Minutes = defaultdict[datetime, set[str]]
"""Symbols that have a bar in each."""


class _Reach(NamedTuple):
    """The minutes that a stretch reaches, without late ones."""

    starts: datetime
    latest: datetime


class Complete(NamedTuple):
    """A minute that the feed's clock has passed."""

    ts: datetime
    """Its start, UTC."""
    bars: int
    """Symbols that have a bar in it."""


class Behind(NamedTuple):
    """How far ingest is behind the feed while it stores a batch."""

    frames_waiting: int
    """Received and not stored, without the batch."""
    spilled_bytes: int
    """In the spill file and not stored, without the batch."""
    stored_after: timedelta
    """Since the first of the batch was received."""


class Stretch:
    """A subscription without a break, in the table `feed_stretches`."""

    def __init__(
        self,
        conn: Connection[TupleRow],
        feed: str,
        channel: str,
        symbols: Sequence[str] | None,
        *,
        before: "Stretch | None" = None,
    ) -> None:
        """`before`: this one goes on from it, on the same connection; only the symbols were changed."""
        # Minutes go on, too: what the other one has seen of the latest is complete with the next one.
        self._seen: _Minutes = defaultdict(set, before._seen) if before else defaultdict(set)
        self._latest: datetime | None = before._latest if before else None
        self._reach: _Reach | None = None
        # A bar of an earlier minute is a late one; it does not tell where the stretch begins.
        self._since: datetime | None = fetch_value(
            conn, "select max(latest) from public.feed_stretches where feed = %s", feed
        )
        names = None if symbols is None else list(symbols)
        # The minute in which the one before was lost has been passed, too, once a later bar comes.
        self._left: _Minutes = before._left if before else _left(conn, self._since, symbols)
        with conn.transaction():  # nobody is to see it before it is alive
            followed = before and fetch_value(
                conn, "select tickstock.change_stretch(%s, %s)", before.id, names
            )
            self.id: int = followed or fetch_value(
                conn, "select tickstock.open_stretch(%s, %s, %s)", feed, channel, names
            )
            self.hold(conn)

    def hold(self, conn: Connection[TupleRow]) -> None:
        """This connection writes it: as long as it lasts, the stretch is alive."""
        conn.execute("select tickstock.hold_stretch(%s)", (self.id,))

    def extend(
        self, conn: Connection[TupleRow], bars: Sequence[Bar], behind: Behind | None = None
    ) -> list[Complete]:
        """Bars that came by it have been stored; which minutes are complete by that.

        Call it in the transaction of the bars, and `commit` after it.
        """
        if not bars:
            return []
        came = _by_minute(bars)
        first = min((ts for ts in came if self._since is None or ts >= self._since), default=None)
        latest = max(came)
        if first:  # else there are only late ones, or it is a replay of an earlier time
            for ts, symbols in self._left.items():
                self._seen[ts] |= symbols
            self._left = defaultdict(set)
        reach = self._reach_with(came)
        is_new = reach and (self._reach is None or reach.starts > self._reach.starts)
        starts = reach.starts if reach and is_new else None
        conn.execute(
            "select tickstock.extend_stretch(%s, %s, %s, %s, %s, %s, %s)",
            (self.id, starts, latest, len(bars), *(behind or (None, None, None))),
        )
        complete = self._complete(came, self._latest or first or latest, latest)
        for minute in complete:
            conn.execute(
                "select tickstock.complete_minute(%s, %s, %s)", (self.id, minute.ts, minute.bars)
            )
        return complete

    def commit(self, bars: Sequence[Bar]) -> None:
        """What `extend` was told of is in the database for good."""
        came = _by_minute(bars)
        self._reach = self._reach_with(came)
        for ts, symbols in came.items():
            self._seen[ts] |= symbols
        if self._seen:
            self._latest = max(self._seen)
            for ts in [ts for ts in self._seen if ts < self._latest]:
                del self._seen[ts]

    def close(self, conn: Connection[TupleRow], reason: str, *, intended: bool) -> None:
        conn.execute("select tickstock.close_stretch(%s, %s, %s)", (self.id, reason, intended))

    def _reach_with(self, came: _Minutes) -> _Reach | None:
        """What it reaches with these, too.

        The first bar may be a late one, hours late even: some are corrected at the day's end. So as long as
        nothing is covered, a leap of more than a quarter of an hour is a new beginning. If nobody traded in
        between, nothing is lost but a question to REST.
        """
        reach = self._reach
        for ts in sorted(ts for ts in came if self._since is None or ts >= self._since):
            if reach is None or (
                ts - reach.latest > LATE and reach.latest - reach.starts <= LATE + MINUTE
            ):
                reach = _Reach(ts, ts)
            else:
                reach = reach._replace(latest=max(reach.latest, ts))
        return reach

    def _complete(self, came: _Minutes, since: datetime, latest: datetime) -> list[Complete]:
        """The minutes from `since`, the latest one so far, up to `latest`, the new one."""
        minutes = {*self._seen, *(ts for ts in came if ts >= since)}
        return [
            Complete(ts, len(self._seen.get(ts, set()) | came.get(ts, set())))
            for ts in sorted(minutes)
            if ts < latest
        ]


def _left(
    conn: Connection[TupleRow], latest: datetime | None, symbols: Sequence[str] | None
) -> _Minutes:
    """What is stored of the latest minute, of these symbols (None: of all), while it is not complete."""
    names = None if symbols is None else list(symbols)
    rows = conn.execute(
        "select symbol from public.ohlcv_1min where ts = %s and (%s::text[] is null or symbol = any (%s))"
        " and not exists (select from public.minutes_complete where ts = %s)",
        (latest, names, names, latest),
    )
    minutes: _Minutes = defaultdict(set)
    for (symbol,) in rows:
        assert latest
        minutes[latest].add(symbol)
    return minutes


def _by_minute(bars: Sequence[Bar]) -> _Minutes:
    minutes: _Minutes = defaultdict(set)
    for bar in bars:
        minutes[bar.ts].add(bar.symbol)
    return minutes
