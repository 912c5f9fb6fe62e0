"""`tickstock scan`: scan whenever bars arrive, for as long as we are let."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.counted import counted
from tickstock.db.connection import connect, first_line, require_schema
from tickstock.db.upkeep import UpkeepWorker
from tickstock.errors import DatabaseUnavailableError
from tickstock.feed.backoff import Backoff
from tickstock.patterns import Pattern
from tickstock.scan.judge import PATTERN_TIMEOUT
from tickstock.scan.publisher import Publisher, begin_publishing
from tickstock.scan.scanner import Scanner, side_by_side
from tickstock.scan.watch import telling_of_slow_patterns

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between scans when nobody notifies, and between looks at `stop`."""
SOON = 0.02
"""Seconds to the next scan while another thread is at work: what it does may make larger candles ready."""
REPORT_EVERY = 10.0
AT_ONCE = 1_250
"""Candles, so that the threads take turns within a minute of thousands of symbols."""


class ScanWorker:
    """Scans until `stop` is set; after a lost database it comes back when the database does."""

    def __init__(
        self,
        url: str,
        patterns: Sequence[Pattern],
        *,
        redis_url: str | None = None,
        pattern_timeout: float = PATTERN_TIMEOUT,
    ) -> None:
        self.stop = threading.Event()
        self.candles = 0
        self.events = 0
        self._url = url
        self._pattern_timeout = pattern_timeout
        self._scanners = side_by_side(patterns, pattern_timeout)
        self._lock = threading.Lock()
        self._at_work = 0
        self._failure: BaseException | None = None
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
        beside = [
            threading.Thread(target=self._scan_beside, args=(scanner,), name="scan", daemon=True)
            for scanner in self._scanners[1:]
        ]
        for thread in beside:
            thread.start()
        with telling_of_slow_patterns(self._pattern_timeout):
            self._scan_for_good(self._scanners[0], conn)
        for thread in beside:
            thread.join(timeout=10)
        if self._failure:
            raise self._failure
        if self._publisher:
            self._publisher.wake()
            self._publisher.join(timeout=10)
        self._upkeep.join(timeout=5)
        log.info("%s", self.summary())

    def summary(self) -> str:
        return f"{counted(self.candles, 'candle')} scanned, {counted(self.events, 'event')}"

    def _scan_beside(self, scanner: Scanner) -> None:
        """Until stopped; if it fails, so does the worker."""
        try:
            conn = self._reopen(Backoff(first=0.01, cap=5.0))
            if conn:
                self._scan_for_good(scanner, conn)
        except BaseException as error:
            self._failure = error
            self.stop.set()

    def _scan_for_good(self, scanner: Scanner, conn: Connection[TupleRow]) -> None:
        first = scanner is self._scanners[0]
        backoff = Backoff(first=0.2, cap=5.0)
        while not self.stop.is_set():
            try:
                with conn:
                    self._scan_until_stopped(scanner, conn, backoff)
            except psycopg.OperationalError as error:
                if first:
                    log.warning("database gone, will try again: %s", first_line(error))
                conn = self._reopen(backoff) or conn

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

    def _scan_until_stopped(
        self, scanner: Scanner, conn: Connection[TupleRow], backoff: Backoff
    ) -> None:
        while not self.stop.is_set():
            while self._scan(scanner, conn) and not self.stop.is_set():
                backoff.reset()
                self._report()
            self._report()
            for _ in conn.notifies(timeout=SOON if self._at_work else POLL, stop_after=1):
                pass

    def _scan(self, scanner: Scanner, conn: Connection[TupleRow]) -> bool:
        with self._working():
            scanned = scanner.scan(conn, most=AT_ONCE)
        with self._lock:
            self.candles += scanned.candles
            self.events += scanned.events
        if scanned.events and self._publisher:
            self._publisher.wake()
        return scanned.candles > 0

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1

    def _report(self) -> None:
        with self._lock:
            due = time.monotonic() >= self._report_at
            if due:
                self._report_at = time.monotonic() + REPORT_EVERY
        if due:
            log.info("%s", self.summary())
