"""`tickstock scan`: scan whenever bars arrive, for as long as we are let."""

import logging
import threading
import time
from collections.abc import Sequence

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, first_line, require_schema
from tickstock.db.upkeep import UpkeepWorker
from tickstock.errors import DatabaseUnavailableError
from tickstock.feed.backoff import Backoff
from tickstock.patterns import Pattern
from tickstock.scan.publisher import Publisher, begin_publishing
from tickstock.scan.scanner import Scanner

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between scans when nobody notifies, and between looks at `stop`."""
REPORT_EVERY = 10.0


class ScanWorker:
    """Scans until `stop` is set; after a lost database it comes back when the database does."""

    def __init__(
        self, url: str, patterns: Sequence[Pattern], *, redis_url: str | None = None
    ) -> None:
        self.stop = threading.Event()
        self.candles = 0
        self.events = 0
        self._url = url
        self._scanner = Scanner(patterns)
        self._publisher = Publisher(url, redis_url, self.stop) if redis_url else None
        # Usually `ingest` sees to it; a scanner does where no ingest runs.
        self._upkeep = UpkeepWorker(url, self.stop, wait=False)
        self._report_at = time.monotonic() + REPORT_EVERY

    def run(self) -> None:
        """Raises DatabaseUnavailableError or SchemaMissingError at the start only."""
        conn = self._open()
        self._upkeep.start()
        if self._publisher:
            begin_publishing(conn)
            self._publisher.start()
        else:
            log.info("no Redis: events go by NOTIFY alone (set TICKSTOCK_REDIS_URL)")
        backoff = Backoff(first=0.2, cap=5.0)
        while not self.stop.is_set():
            try:
                with conn:
                    self._scan_until_stopped(conn, backoff)
            except psycopg.OperationalError as error:
                log.warning("database gone, will try again: %s", first_line(error))
                conn = self._reopen(backoff) or conn
        if self._publisher:
            self._publisher.wake()
            self._publisher.join(timeout=10)
        self._upkeep.join(timeout=5)
        log.info("%s", self.summary())

    def summary(self) -> str:
        return f"{self.candles:,} candles scanned, {self.events:,} events"

    def _open(self) -> Connection[TupleRow]:
        conn = connect(self._url, program="scan")
        try:
            require_schema(conn)
            # Held as long as we live: so each scanner knows how many there are, and takes its share.
            conn.execute("select pg_advisory_lock_shared(hashtext('tickstock.scanners'))")
            conn.execute("listen tickstock_bars")
        except BaseException:
            conn.close()
            raise
        return conn

    def _reopen(self, backoff: Backoff) -> Connection[TupleRow] | None:
        while not self.stop.wait(backoff.next()):
            try:
                return self._open()
            except (psycopg.OperationalError, DatabaseUnavailableError) as error:
                log.debug("still gone: %s", first_line(error))
        return None

    def _scan_until_stopped(self, conn: Connection[TupleRow], backoff: Backoff) -> None:
        while not self.stop.is_set():
            while self._scan(conn) and not self.stop.is_set():
                backoff.reset()
                self._report()
            self._report()
            for _ in conn.notifies(timeout=POLL, stop_after=1):
                pass

    def _scan(self, conn: Connection[TupleRow]) -> bool:
        scanned = self._scanner.scan(conn)
        self.candles += scanned.candles
        self.events += scanned.events
        if scanned.events and self._publisher:
            self._publisher.wake()
        return scanned.candles > 0

    def _report(self) -> None:
        if time.monotonic() >= self._report_at:
            log.info("%s", self.summary())
            self._report_at = time.monotonic() + REPORT_EVERY
