"""Filling what the feed left out, by REST: beside the live stream, newest first, resumable.

What is owed is known to the database (`tickstock.owed()`), so nothing is forgotten by a restart, and
each answer is written together with the note that it was given. Bars may still change for a quarter
of an hour: what is asked for before is shown at once, and asked for again later. What REST refuses of
one symbol holds up no other.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value, first_line
from tickstock.db.writer import Counts, write_bars
from tickstock.errors import (
    DatabaseUnavailableError,
    RestAnswerError,
    RestFailedError,
    RestNotInPlanError,
    RestRefusedError,
    RestUnavailableError,
    TickstockError,
)
from tickstock.feed.backoff import Backoff
from tickstock.feed.http import Counts as Calls
from tickstock.feed.http import StoppedError
from tickstock.feed.rest import RestClient, runs_by_the_wall

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
TRADING_DAYS = """
select day from trading_days
where day between (%s at time zone 'America/New_York')::date
          and ((%s - interval '1 minute') at time zone 'America/New_York')::date
order by day desc
"""
KNOWN = timedelta(days=7)
"""Symbols that had a bar within this time before a gap may have traded in it."""
ASK_AGAIN = 60.0
"""Seconds after which, at first, REST is asked again for what it refused."""
ASK_AGAIN_AT_MOST = 3600.0
OF_ONE_QUESTION = (RestNotInPlanError, RestAnswerError, RestFailedError)
"""Refusals that say nothing about other symbols and days."""
OF_ALL_QUESTIONS = (RestUnavailableError, RestRefusedError, StoppedError)
"""After these nothing else need be asked now."""


class Gap(NamedTuple):
    """What to ask for: a symbol (* for all) from `starts` up to `ends`, UTC."""

    symbol: str
    starts: datetime
    ends: datetime

    def __str__(self) -> str:
        name = "all symbols" if self.symbol == "*" else self.symbol
        return f"{name} from {self.starts:%Y-%m-%d %H:%M} to {self.ends:%Y-%m-%d %H:%M} UTC"


class Failure(NamedTuple):
    """What could not be filled, and why."""

    gap: Gap
    error: TickstockError


class Filled(NamedTuple):
    """What became of gaps that REST was asked for."""

    counts: Counts
    failures: list[Failure]
    left: Sequence[Gap] = ()
    """Not asked, or not to the end, since what `ended` it concerns them all."""
    ended: TickstockError | StoppedError | None = None

    def plus(self, other: "Filled") -> "Filled":
        """Of both, one after the other."""
        return Filled(
            self.counts.plus(other.counts),
            self.failures + other.failures,
            [*self.left, *other.left],
            self.ended or other.ended,
        )


def askable(conn: Connection[TupleRow], clock: datetime) -> list[Gap]:
    """What is owed and worth asking for now, newest first."""
    return [Gap(*row) for row in conn.execute("select * from tickstock.askable(%s)", (clock,))]


def latest_clock(conn: Connection[TupleRow], feed: str) -> datetime:
    """The latest that the source's clock may show, without asking it; UTC."""
    clock: datetime = fetch_value(
        conn,
        "select greatest(clock_timestamp() - %s, feed_clock())",
        delay_of(feed),
    )
    return clock


def source_clock(conn: Connection[TupleRow], rest: RestClient, feed: str) -> datetime | None:
    """Up to when REST can know bars; UTC.

    By its own clock. Where it does not tell, by the clock on the wall for the vendor's feeds, by the
    feed's for others: those may be replays, and what lies ahead of them must not count as told.
    """
    told = rest.server_time()
    if told is None:
        if runs_by_the_wall(feed):
            return latest_clock(conn, feed)
        clock: datetime | None = fetch_value(conn, "select feed_clock()")
        return clock
    return datetime.fromisoformat(told).astimezone(UTC) - delay_of(feed)


def delay_of(feed: str) -> timedelta:
    """How far behind the present this feed runs, by its address."""
    return DELAY if "delayed" in feed else timedelta()


def ask(
    conn: Connection[TupleRow],
    rest: RestClient,
    gap: Gap,
    clock: datetime,
    *,
    queue_for_scan: bool = True,
) -> Iterator[Counts]:
    """Ask REST for the bars of one symbol's gap and write them, each page with the note of it.

    What became of each page, once it is written.
    """
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
        yield written.counts
        starts = page.until


def settle(conn: Connection[TupleRow], gap: Gap, clock: datetime, source: str, bars: int) -> None:
    """Note that a source whose clock is at `clock` has told all of the gap's bars."""
    # Whole minutes: of one that began a quarter of an hour ago, the bar came a minute later.
    final_before = (clock - LATE).replace(second=0, microsecond=0)
    conn.execute(
        "select tickstock.settle(%s, %s, %s, %s, %s, %s)", (*gap, final_before, source, bars)
    )


def questions(conn: Connection[TupleRow], rest: RestClient, gap: Gap) -> list[Gap]:
    """What REST is to be asked to fill a gap: itself or, of all symbols, each that may have traded.

    Without those that it has told for good. Raises what `RestClient` raises.
    """
    if gap.symbol != "*":
        return [gap]
    since = gap.starts - KNOWN
    symbols = {row[0] for row in conn.execute("select tickstock.symbols_since(%s)", (since,))}
    for (day,) in conn.execute(TRADING_DAYS, (gap.starts, gap.ends)).fetchall():
        symbols |= set(rest.traded_on(day))
    told = {row[0] for row in conn.execute(TOLD, (gap.starts, gap.ends))}
    return [Gap(symbol, gap.starts, gap.ends) for symbol in sorted(symbols - told)]


def ask_each(
    conn: Connection[TupleRow],
    rest: RestClient,
    gaps: Sequence[Gap],
    clock: datetime,
    *,
    queue_for_scan: bool = True,
    progress: Callable[[Gap], object] = lambda _: None,
) -> Filled:
    """Ask REST for each of the gaps; what it refuses of one does not stop the others.

    What concerns them all ends it (`Filled.ended`); what was told until then is kept.
    """
    counts, failures = Counts(), []
    for number, gap in enumerate(gaps):
        try:
            for written in ask(conn, rest, gap, clock, queue_for_scan=queue_for_scan):
                counts = counts.plus(written)
        except OF_ONE_QUESTION as error:
            failures.append(Failure(gap, error))
        except OF_ALL_QUESTIONS as error:
            return Filled(counts, failures, gaps[number:], error)
        progress(gap)
    return Filled(counts, failures)


def fill(
    conn: Connection[TupleRow],
    rest: RestClient,
    gap: Gap,
    asked: Sequence[Gap],
    clock: datetime,
    progress: Callable[[Gap], object] = lambda _: None,
) -> Filled:
    """Fill a gap by these `questions`; what was told is kept.

    A gap of all symbols is owed as long as one of them is refused.
    """
    filled = ask_each(conn, rest, asked, clock, progress=progress)
    if gap.symbol == "*" and not filled.failures and not filled.ended:
        with conn.transaction():
            settle(conn, gap, clock, SOURCE, filled.counts.received)
            conn.execute("select tickstock.forget_told_by_all()")
    return filled


@dataclass
class _Refused:
    """A gap that REST refused, and when it is asked again."""

    ends: datetime
    backoff: Backoff
    due: float = 0.0
    """By the monotonic clock."""


class _Clock:
    """The source's clock, as it was told and goes on since."""

    def __init__(self, told: datetime) -> None:
        self._told = told
        self._at = time.monotonic()

    def now(self) -> datetime:
        return self._told + timedelta(seconds=time.monotonic() - self._at)


class Filler(threading.Thread):
    """Fills gaps as long as ingest runs, on a connection of its own. One at a time per database.

    `every`: seconds between two looks at what is owed. `ask_again`: seconds after which REST is first
    asked again for what it refused, an hour at most.
    """

    def __init__(
        self,
        url: str,
        rest: RestClient,
        stop: threading.Event,
        *,
        feed: str,
        every: float = LOOK_EVERY,
        ask_again: float = ASK_AGAIN,
    ) -> None:
        super().__init__(name="fill", daemon=True)
        self.counts = Counts()
        self._url = url
        self._rest = rest
        self._stop_event = stop
        self._feed = feed
        self._every = every
        self._ask_again = ask_again
        self._looked = 0.0
        self._refused: dict[tuple[str, datetime], _Refused] = {}

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
                self._fill_owed(conn)
            self._stop_event.wait(self._every)

    def _fill_owed(self, conn: Connection[TupleRow]) -> None:
        # The database is asked first: while nothing is owed, REST need not even tell the time.
        if not self._wanted(conn, latest_clock(conn, self._feed)):
            return
        told = source_clock(conn, self._rest, self._feed)
        if told is not None:
            self._fill_newest(conn, _Clock(told), datetime.min.replace(tzinfo=UTC))

    def _fill_newest(self, conn: Connection[TupleRow], clock: _Clock, since: datetime) -> None:
        """Fill what is owed since then, newest first, each gap once; new ones as they appear."""
        done: set[Gap] = set()
        while gaps := [
            gap
            for gap in self._wanted(conn, clock.now())
            if gap not in done and gap.starts >= since
        ]:
            failures: list[Failure] = []
            try:
                for gap in gaps:
                    done.add(gap)
                    failures += self._fill(conn, gap, clock)
                    if self._is_time_to_look():
                        break
            finally:
                self._complain(failures)

    def _wanted(self, conn: Connection[TupleRow], clock: datetime) -> list[Gap]:
        """What is askable, but for what was refused a while ago."""
        self._looked = time.monotonic()
        gaps = askable(conn, clock)
        known = {(gap.symbol, gap.starts) for gap in gaps}
        self._refused = {key: was for key, was in self._refused.items() if key in known}
        return [gap for gap in gaps if not self._waits(gap)]

    def _waits(self, gap: Gap) -> bool:
        was = self._refused.get((gap.symbol, gap.starts))
        # One that goes on is another question by and by.
        return was is not None and gap.ends < was.ends + LATE and time.monotonic() < was.due

    def _is_time_to_look(self) -> bool:
        return time.monotonic() - self._looked >= self._every

    def _fill(self, conn: Connection[TupleRow], gap: Gap, clock: _Clock) -> list[Failure]:
        """Fill one gap. What could not be filled and was not refused before."""

        def look(_: Gap) -> None:
            if self._is_time_to_look():
                self._fill_newest(conn, clock, gap.ends)

        try:
            asked = questions(conn, self._rest, gap)
            filled = fill(conn, self._rest, gap, asked, clock.now(), look)
        except OF_ONE_QUESTION as error:
            filled = Filled(Counts(), [Failure(gap, error)])
        self.counts = self.counts.plus(filled.counts)
        if filled.ended:
            raise filled.ended
        if filled.failures:
            return self._put_off(gap, filled.failures)
        log.info(
            "gap of %s: %d bars, %d of them missing or changed",
            gap,
            filled.counts.received,
            filled.counts.inserted + filled.counts.replaced,
        )
        return []

    def _put_off(self, gap: Gap, failures: list[Failure]) -> list[Failure]:
        """Ask for this gap later; those of its failures that are news."""
        key = (gap.symbol, gap.starts)
        is_new = key not in self._refused
        backoff = Backoff(self._ask_again, ASK_AGAIN_AT_MOST)
        refused = self._refused.setdefault(key, _Refused(gap.ends, backoff))
        refused.ends = gap.ends
        refused.due = time.monotonic() + refused.backoff.next()
        return failures if is_new else []

    def _complain(self, failures: list[Failure]) -> None:
        """One line, however many there are: the plan may refuse all symbols."""
        if failures:
            gap, error = failures[0]
            others = f" ({len(failures) - 1} others, too)" if failures[1:] else ""
            log.warning("%s%s stays owed, and is asked for later: %s", gap, others, error.message)
