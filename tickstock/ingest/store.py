"""Storing batches for as long as it takes: the database may go away, a bar may be poison."""

import logging
import threading
import time
from collections.abc import Sequence

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import PAYLOAD_LIMIT, Bar, Refusal
from tickstock.db.connection import connect, first_line, require_schema
from tickstock.db.writer import Counts, Written, write_bars
from tickstock.errors import DatabaseUnavailableError
from tickstock.feed.backoff import Backoff

log = logging.getLogger(__name__)

SOURCE = "feed"
GRACE = 10.0
"""Seconds that a database which is gone is waited for once we were asked to stop."""


class Store:
    """Writes batches of bars, in order, and comes back after the database did."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.counts = Counts()
        self._url = url
        self._stop = stop
        self._conn: Connection[TupleRow] | None = connect(url, program="ingest")
        require_schema(self._conn)

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()

    def write(self, bars: Sequence[Bar], refusals: Sequence[Refusal]) -> list[Bar]:
        """Write a batch, waiting for the database if need be. Returns the bars that were possible.

        Raises DatabaseUnavailableError only when asked to stop while the database is gone.
        """
        try:
            written = self._persist(bars, refusals)
        except psycopg.DataError as error:
            return self._write_without_poison(bars, refusals, error)
        self.counts = self.counts.plus(written.counts)
        return [bar for row, bar in enumerate(bars) if row not in written.refused_rows]

    def _write_without_poison(
        self, bars: Sequence[Bar], refusals: Sequence[Refusal], error: psycopg.DataError
    ) -> list[Bar]:
        """The database can't even read some bar of the batch: find it by halving, refuse it alone."""
        if len(bars) > 1:
            middle = len(bars) // 2
            return [*self.write(bars[:middle], refusals), *self.write(bars[middle:], ())]
        if not bars:
            raise error
        payload = repr(tuple(bars[0]))[:PAYLOAD_LIMIT]
        return self.write((), [*refusals, Refusal(SOURCE, first_line(error), payload)])

    def _persist(self, bars: Sequence[Bar], refusals: Sequence[Refusal]) -> Written:
        backoff = Backoff(first=0.2, cap=5.0)
        deadline = None
        while True:
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = connect(self._url, program="ingest")
                return write_bars(self._conn, bars, source=SOURCE, refusals=refusals)
            except (psycopg.OperationalError, DatabaseUnavailableError) as error:
                self._drop_connection()
                if self._stop.is_set():
                    deadline = deadline or time.monotonic() + GRACE
                    if time.monotonic() > deadline:
                        raise DatabaseUnavailableError(
                            f"{len(bars)} received bars could not be stored, the database is gone: "
                            f"{first_line(error)}. `tickstock load` the day's file once it is out."
                        ) from error
                log.warning("database gone, %d bars wait: %s", len(bars), first_line(error))
                time.sleep(backoff.next()) if self._stop.is_set() else self._stop.wait(
                    backoff.next()
                )

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
