"""Driving `ohlcv_refresh()`, since not every engine has jobs of its own."""

import logging
import threading

import psycopg

from tickstock.db.connection import connect, first_line
from tickstock.errors import DatabaseUnavailableError

log = logging.getLogger(__name__)


class RefreshWorker(threading.Thread):
    """Calls `ohlcv_refresh()` every `interval` seconds until `stop` is set.

    Refreshing changes what queries cost, never what they answer: a failure is logged and tried again.
    """

    def __init__(self, url: str, stop: threading.Event, *, interval: float = 10.0) -> None:
        super().__init__(name="refresh", daemon=True)
        self._url = url
        self._stop_event = stop
        self._interval = interval

    def run(self) -> None:
        while not self._stop_event.wait(self._interval):
            try:
                self._refresh_until_trouble()
            except psycopg.errors.LockNotAvailable:
                log.warning(
                    "refresh waits: another session holds its lock (select pid from pg_locks where "
                    "locktype = 'advisory'); answers stay exact, queries get slower"
                )
            except (psycopg.Error, DatabaseUnavailableError) as error:
                log.warning("refresh failed, will try again: %s", first_line(error))

    def _refresh_until_trouble(self) -> None:
        # A connection of its own, closed on any error: a failed refresh must not keep its lock.
        with connect(self._url, program="refresh") as conn:
            # A psql session whose refresh was interrupted keeps the lock until it ends: say so.
            conn.execute("set lock_timeout = '60s'")
            while True:
                conn.execute("call public.ohlcv_refresh()")
                if self._stop_event.wait(self._interval):
                    return
