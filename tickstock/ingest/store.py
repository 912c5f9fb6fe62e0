"""Storing batches for as long as it takes: the database may go away, a bar may be poison."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import Connection
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction
from psycopg.rows import TupleRow

from tickstock.bars import PAYLOAD_LIMIT, Bar, Refusal
from tickstock.counted import counted
from tickstock.db.connection import connect, first_line, is_read_only, require_schema, where
from tickstock.db.writer import Counts, write_bars, write_new_bars, write_new_ticks
from tickstock.errors import DatabaseUnavailableError
from tickstock.feed.backoff import Backoff
from tickstock.ingest.ledger import Behind, Complete, Stretch
from tickstock.ticks import Trade

log = logging.getLogger(__name__)

SOURCE = "feed"
# After a failover the one that is reached may be read-only for a while.
GONE = (psycopg.OperationalError, ReadOnlySqlTransaction, DatabaseUnavailableError)
GRACE = 10.0
"""Seconds that a database which is gone is waited for once we were asked to stop."""
LOCK_TIMEOUT = "set lock_timeout = '10s'"
"""Who locks a table holds up neither an ending nor what the operator is told."""

Result = TypeVar("Result")


class Stored(NamedTuple):
    """What became of a batch."""

    bars: list[Bar]
    """Those that were possible."""
    complete: list[Complete]
    """Minutes that the feed's clock has passed by it."""


class Store:
    """Writes batches of bars, in order, and comes back after the database did."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.counts = Counts()
        self._url = url
        self._stop = stop
        self._stretch: Stretch | None = None
        self._all_new = True
        """Whether all bars of the last batch were new and possible: then those of the next are, too."""
        self._conn: Connection[TupleRow] | None = self._connect()
        require_schema(self._conn)
        if is_read_only(self._conn):
            raise DatabaseUnavailableError(
                f"the database at {where(url)} is read-only, a standby perhaps: nothing can be stored there. "
                "Set TICKSTOCK_DATABASE_URL to the primary"
            )

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()

    def open_stretch(self, feed: str, channel: str, symbols: Sequence[str] | None) -> None:
        """A subscription begins: what is written from here on came by it."""
        self.close_stretch("ingest was killed", intended=False)
        self._stretch = self._persist(
            lambda conn: Stretch(conn, feed, channel, symbols), "the feed's ledger"
        )

    def change_stretch(self, feed: str, channel: str, symbols: Sequence[str] | None) -> None:
        """The symbols of the subscription were changed; the connection goes on."""
        before = self._stretch
        self._stretch = self._persist(
            lambda conn: Stretch(conn, feed, channel, symbols, before=before), "the feed's ledger"
        )

    def close_stretch(self, reason: str, *, intended: bool) -> None:
        """The subscription has ended, if there is one; `intended`: by the operator's wish."""
        stretch, self._stretch = self._stretch, None
        if stretch is not None:
            self._persist(
                lambda conn: stretch.close(conn, reason, intended=intended), "the feed's ledger"
            )

    def write(
        self,
        bars: Sequence[Bar],
        refusals: Sequence[Refusal],
        *,
        trades: Sequence[Trade] = (),
        owed: Sequence[tuple[str, datetime]] = (),
        behind: Callable[[], Behind] | None = None,
    ) -> Stored:
        """Write a batch, waiting for the database if need be. `owed`: to be asked of REST.

        `behind`: asked at the end of each try, for the ledger.

        Raises DatabaseUnavailableError only when asked to stop while the database is gone.
        """
        try:
            counts, stored = self._persist(
                lambda conn: self._write(conn, bars, refusals, trades, owed, behind),
                counted(len(bars), "bar"),
            )
        except psycopg.DataError as error:
            stored = self._write_without_poison(bars, refusals, error, behind)
            self.write((), (), trades=trades, owed=owed)
            return stored
        self.counts = self.counts.plus(counts)
        if self._stretch is not None:
            self._stretch.commit(stored.bars)
        return stored

    def _write(
        self,
        conn: Connection[TupleRow],
        bars: Sequence[Bar],
        refusals: Sequence[Refusal],
        trades: Sequence[Trade],
        owed: Sequence[tuple[str, datetime]],
        behind: Callable[[], Behind] | None,
    ) -> tuple[Counts, Stored]:
        with conn.transaction():
            write = write_new_bars if self._all_new else write_bars
            written = write(conn, bars, source=SOURCE, refusals=refusals)
            self._all_new = written.counts.inserted == len(bars)
            if trades:
                write_new_ticks(conn, trades, source=SOURCE)
            refused = [bars[row] for row in sorted(written.refused_rows)]
            possible = list(bars)
            if refused:
                possible = [b for row, b in enumerate(bars) if row not in written.refused_rows]
            # What was refused may be right where REST has it.
            if owed := [*owed, *((bar.symbol, bar.ts) for bar in refused)]:
                symbols, minutes = [symbol for symbol, _ in owed], [ts for _, ts in owed]
                conn.execute("select tickstock.doubt(%s, %s)", (symbols, minutes))
            complete = []
            if self._stretch:
                complete = self._stretch.extend(conn, possible, behind and behind())
        return written.counts, Stored(possible, complete)

    def _write_without_poison(
        self,
        bars: Sequence[Bar],
        refusals: Sequence[Refusal],
        error: psycopg.DataError,
        behind: Callable[[], Behind] | None,
    ) -> Stored:
        """The database can't even read some bar of the batch: find it by halving, refuse it alone."""
        if len(bars) > 1:
            middle = len(bars) // 2
            first = self.write(bars[:middle], refusals, behind=behind)
            second = self.write(bars[middle:], (), behind=behind)
            return Stored(first.bars + second.bars, first.complete + second.complete)
        if not bars:
            raise error
        payload = repr(tuple(bars[0]))[:PAYLOAD_LIMIT]
        return self.write((), [*refusals, Refusal(SOURCE, first_line(error), payload)])

    def _persist(self, work: Callable[[Connection[TupleRow]], Result], what: str) -> Result:
        """Do it, however often the database goes away meanwhile."""
        backoff = Backoff(first=0.2, cap=5.0)
        deadline = None
        while True:
            try:
                return work(self._connection())
            except GONE as error:
                state = _state(error)
                if state != "locked":
                    self._drop_connection()
                if self._stop.is_set():
                    deadline = deadline or time.monotonic() + GRACE
                    if time.monotonic() > deadline:
                        raise DatabaseUnavailableError(
                            f"{what} could not be stored, the database is {state}: {first_line(error)}."
                        ) from error
                log.warning("database %s, %s wait: %s", state, what, first_line(error))
                time.sleep(backoff.next()) if self._stop.is_set() else self._stop.wait(
                    backoff.next()
                )

    def _connection(self) -> Connection[TupleRow]:
        if self._conn is None or self._conn.closed:
            self._conn = self._connect()
            if self._stretch is not None:
                self._stretch.hold(self._conn)
        return self._conn

    def _connect(self) -> Connection[TupleRow]:
        conn = connect(self._url, program="ingest")
        conn.execute(LOCK_TIMEOUT)
        return conn

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _state(error: Exception) -> str:
    """What is the matter with the database, in a word."""
    match error:
        case LockNotAvailable():
            return "locked"
        case ReadOnlySqlTransaction():
            return "read-only"
        case _:
            return "gone"
