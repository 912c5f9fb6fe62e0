"""Driving `ohlcv_refresh()` and `ohlcv_keep_house()`, since not every engine has jobs of its own."""

import logging
import sys
import threading
import time
from contextlib import suppress

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value, first_line, without_time_limits
from tickstock.errors import DatabaseUnavailableError
from tickstock.progress import progress_bar

log = logging.getLogger(__name__)

KEEP_HOUSE_EVERY = 3600.0
"""Seconds between two calls of `ohlcv_keep_house()`."""
MAY_KEEP_HOUSE = "select has_function_privilege('public.ohlcv_keep_house()', 'execute')"
BARS_ARE_NOT_KEPT = """
-- On the community edition a job of the owner's does it.
select keep_bars is not null and tickstock_engine() <> 'community' from public.storage_policy
"""


MARKS = "select count(*) from tickstock.dirty"


def refresh(conn: Connection[TupleRow], url: str) -> None:
    """Call `ohlcv_refresh()`. On a terminal a bar shows meanwhile how many marks are gone.

    `url` is for a second session to the same database, which counts them.
    """
    without_time_limits(conn)
    call = "call public.ohlcv_refresh()"
    marks = fetch_value(conn, MARKS) if sys.stderr.isatty() else 0
    if not marks:
        conn.execute(call)
        return
    over = threading.Event()
    with progress_bar(marks, "refresh") as progress:

        def watch() -> None:
            with (
                suppress(psycopg.Error, DatabaseUnavailableError),
                connect(url, program="watch") as own,
            ):
                while not over.wait(0.5):
                    progress.update(max(0, marks - fetch_value(own, MARKS) - progress.pos))

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            conn.execute(call)
        finally:
            over.set()
            watcher.join()
        progress.update(marks - progress.pos)


class UpkeepWorker(threading.Thread):
    """Refreshes candles every `interval` seconds, and keeps house every hour, until `stop` is set.

    Both change what queries cost, never what they answer: a failure is logged and tried again.
    `wait=False` leaves a refresh to another session that is at it.
    """

    def __init__(
        self, url: str, stop: threading.Event, *, interval: float = 10.0, wait: bool = True
    ) -> None:
        super().__init__(name="upkeep", daemon=True)
        self._url = url
        self._stop_event = stop
        self._interval = interval
        self._wait = wait
        self._keep_house_at = time.monotonic()

    def run(self) -> None:
        while not self._stop_event.wait(self._interval):
            try:
                self._work_until_trouble()
            except psycopg.errors.LockNotAvailable:
                log.warning(
                    "refresh waits: another session holds its lock (select pid from pg_locks where "
                    "locktype = 'advisory'); answers stay exact, queries get slower"
                )
            except (psycopg.Error, DatabaseUnavailableError) as error:
                log.warning("refresh failed, will try again: %s", first_line(error))

    def _work_until_trouble(self) -> None:
        # A connection of its own, closed on any error: a failed refresh must not keep its lock.
        with connect(self._url, program="upkeep") as conn:
            without_time_limits(conn)
            # A psql session whose refresh was interrupted keeps the lock until it ends: say so.
            conn.execute("set lock_timeout = '60s'")
            while True:
                conn.execute("call public.ohlcv_refresh(wait => %s)", (self._wait,))
                self._keep_house(conn)
                if self._stop_event.wait(self._interval):
                    return

    def _keep_house(self, conn: Connection[TupleRow]) -> None:
        if time.monotonic() < self._keep_house_at:
            return
        self._keep_house_at = time.monotonic() + KEEP_HOUSE_EVERY
        if fetch_value(conn, MAY_KEEP_HOUSE):
            conn.execute("call public.ohlcv_keep_house()")
        elif fetch_value(conn, BARS_ARE_NOT_KEPT):
            log.warning(
                "%s may not drop bars that storage_policy does not keep: let the schema's owner run "
                "`tickstock refresh --every 60`",
                conn.info.user,
            )
