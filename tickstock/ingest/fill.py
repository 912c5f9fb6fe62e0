"""Filling what the feed left out, by REST: beside the live stream, newest first, resumable.

What is owed is known to the database (`tickstock.owed()`), so nothing is forgotten by a restart, and
each answer is written together with the note that it was given. Bars may still change for a quarter
of an hour: what is asked for before is shown at once, and asked for again later.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value, first_line
from tickstock.db.writer import Counts, write_bars
from tickstock.errors import (
    DatabaseUnavailableError,
    RestNotInPlanError,
    RestRefusedError,
    TickstockError,
)
from tickstock.feed.http import Counts as Calls
from tickstock.feed.http import StoppedError
from tickstock.feed.rest import RestClient

log = logging.getLogger(__name__)

SOURCE = "rest"
LATE = timedelta(minutes=15)
"""How late bars come, and change; `tickstock.late()` in SQL."""
DELAY = timedelta(minutes=15)
"""How far behind the vendor's delayed feed, and what its plan may ask REST, runs."""
LOOK_EVERY = 5.0
"""Seconds between two looks at what is owed."""
LOCK = "select pg_try_advisory_lock(hashtext('tickstock.fill'))"
TOLD = """
select symbol from backfills where settled group by symbol
having range_agg(tstzrange(starts, ends)) @> tstzrange(%s, %s)
"""
KNOWN = timedelta(days=7)
"""Symbols that had a bar within this time before a gap may have traded in it."""

_NEW_YORK = ZoneInfo("America/New_York")
_DAY = timedelta(days=1)


class Gap(NamedTuple):
    """What to ask for: a symbol (* for all) from `starts` up to `ends`, UTC."""

    symbol: str
    starts: datetime
    ends: datetime


def askable(conn: Connection[TupleRow], clock: datetime) -> list[Gap]:
    """What is owed and worth asking for now, newest first."""
    return [Gap(*row) for row in conn.execute("select * from tickstock.askable(%s)", (clock,))]


def source_clock(conn: Connection[TupleRow], rest: RestClient, feed: str) -> datetime | None:
    """Up to when REST can know bars: its own clock, the feed's where it does not tell; UTC."""
    told = rest.market_now().server_time
    if told is None:
        clock: datetime | None = fetch_value(conn, "select feed_clock()")
        return clock
    return datetime.fromisoformat(told).astimezone(UTC) - (
        DELAY if "delayed" in feed else timedelta()
    )


def ask(
    conn: Connection[TupleRow],
    rest: RestClient,
    gap: Gap,
    clock: datetime,
    *,
    queue_for_scan: bool = True,
) -> Counts:
    """Ask REST for the bars of one symbol's gap and write them, each page with the note of it."""
    counts = Counts()
    starts = gap.starts
    for page in rest.minute_bars(gap.symbol, gap.starts, gap.ends):
        with conn.transaction():
            written = write_bars(
                conn,
                page.bars,
                source=SOURCE,
                refusals=page.refusals,
                queue_for_scan=queue_for_scan,
            )
            settle(conn, Gap(gap.symbol, starts, page.until), clock, SOURCE, len(page.bars))
        counts = counts.plus(written.counts)
        starts = page.until
    return counts


def settle(conn: Connection[TupleRow], gap: Gap, clock: datetime, source: str, bars: int) -> None:
    """Note that a source whose clock is at `clock` has told all of the gap's bars."""
    conn.execute(
        "select tickstock.settle(%s, %s, %s, %s, %s, %s)", (*gap, clock - LATE, source, bars)
    )


def members(conn: Connection[TupleRow], rest: RestClient, gap: Gap) -> list[Gap]:
    """The symbols that may have traded in a gap of all symbols and were not asked for yet."""
    since = gap.starts - KNOWN
    symbols = {row[0] for row in conn.execute("select tickstock.symbols_since(%s)", (since,))}
    day = gap.starts.astimezone(_NEW_YORK).date()
    while day <= gap.ends.astimezone(_NEW_YORK).date():
        symbols |= set(rest.traded_on(day))
        day += _DAY
    told = {row[0] for row in conn.execute(TOLD, (gap.starts, gap.ends))}
    return [Gap(symbol, gap.starts, gap.ends) for symbol in sorted(symbols - told)]


def fill(
    conn: Connection[TupleRow],
    rest: RestClient,
    gap: Gap,
    clock: datetime,
    progress: Callable[[Gap], object] = lambda _: None,
) -> Counts:
    """Fill a gap of one symbol or of all. Raises what `RestClient` raises; what was told is kept."""
    if gap.symbol != "*":
        counts = ask(conn, rest, gap, clock)
        progress(gap)
        return counts
    counts = Counts()
    for member in members(conn, rest, gap):
        counts = counts.plus(ask(conn, rest, member, clock))
        progress(member)
    with conn.transaction():
        settle(conn, gap, clock, SOURCE, counts.received)
        conn.execute("select tickstock.forget_told_by_all()")
    return counts


class Filler(threading.Thread):
    """Fills gaps as long as ingest runs, on a connection of its own. One at a time per database."""

    def __init__(
        self,
        url: str,
        rest: RestClient,
        stop: threading.Event,
        *,
        feed: str,
        every: float = LOOK_EVERY,
    ) -> None:
        super().__init__(name="fill", daemon=True)
        self.counts = Counts()
        self._url = url
        self._rest = rest
        self._stop_event = stop
        self._feed = feed
        self._every = every
        self._trouble = ""

    @property
    def calls(self) -> Calls:
        """What was asked of REST."""
        return self._rest.counts

    def run(self) -> None:
        while not self._stop_event.wait(self._every):
            try:
                with connect(self._url, program="fill") as conn:
                    self._work(conn)
            except StoppedError:
                return
            except RestRefusedError as error:
                log.error("gaps stay owed: %s", error.message)
                return
            except (psycopg.Error, DatabaseUnavailableError) as error:
                log.warning("filling gaps failed, will try again: %s", first_line(error))
            except TickstockError as error:
                log.warning("gaps can't be filled now, will try again: %s", error.message)

    def _work(self, conn: Connection[TupleRow]) -> None:
        while not self._stop_event.is_set():
            if fetch_value(conn, LOCK):
                self._fill_newest(conn)
            self._stop_event.wait(self._every)

    def _fill_newest(self, conn: Connection[TupleRow]) -> None:
        clock = source_clock(conn, self._rest, self._feed)
        if clock is None:
            return
        for gap in askable(conn, clock):
            if self._stop_event.is_set():
                return
            try:
                counts = fill(conn, self._rest, gap, clock)
            except RestNotInPlanError as error:
                self._complain(f"{gap.symbol} stays owed: {error.message}")
                continue
            self.counts = self.counts.plus(counts)
            log.info(
                "gap of %s from %s to %s UTC: %d bars, %d of them missing or changed",
                "all symbols" if gap.symbol == "*" else gap.symbol,
                f"{gap.starts:%Y-%m-%d %H:%M}",
                f"{gap.ends:%Y-%m-%d %H:%M}",
                counts.received,
                counts.inserted + counts.replaced,
            )

    def _complain(self, trouble: str) -> None:
        """Once, not each time it comes again."""
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble
