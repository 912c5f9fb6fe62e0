"""Publishing events on Redis: at least once each, also after Redis was away."""

import logging
import threading

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, first_line
from tickstock.errors import DatabaseUnavailableError
from tickstock.redis import PATTERNS_CHANNEL, RedisError, client

log = logging.getLogger(__name__)

BATCH = 500
POLL = 1.0
"""Seconds between looks at the table, and between tries while Redis is away."""

# One publisher at a time, in the order of ids: two would send some events twice, or out of order.
# Waiting is short, and not for long where another one waits for its Redis.
LOCK_TIMEOUT = "set local lock_timeout = '1s'"
LOCK = "select pg_advisory_xact_lock(hashtext('tickstock.publish'))"
# As text: what travels through Python's floats would lose digits.
WAITING = (
    "select e.id, tickstock.event_payload(e)::text from events e"
    " where published_at is null order by id limit %s"
)
MARK = "update events set published_at = clock_timestamp() where id = any(%s)"


class Publisher(threading.Thread):
    """Publishes unpublished events until `stop` is set; `wake` after recording new ones."""

    def __init__(self, url: str, redis_url: str, stop: threading.Event) -> None:
        super().__init__(name="publish", daemon=True)
        self.published = 0
        self._url = url
        self._redis = client(redis_url)
        self._stop_event = stop
        self._work = threading.Event()
        self._redis_lost = False

    def wake(self) -> None:
        self._work.set()

    def run(self) -> None:
        while not self._stop_event.is_set():
            try:
                with connect(self._url, program="publish") as conn:
                    self._publish_until_stopped(conn)
            except (psycopg.Error, DatabaseUnavailableError) as error:
                log.warning("publishing waits for the database: %s", first_line(error))
                self._stop_event.wait(POLL)

    def _publish_until_stopped(self, conn: Connection[TupleRow]) -> None:
        while not self._stop_event.is_set():
            self._work.clear()
            while self._publish(conn) == BATCH and not self._stop_event.is_set():
                pass
            self._work.wait(POLL)
        self._publish(conn)

    def _publish(self, conn: Connection[TupleRow]) -> int:
        """Publish a batch. Marked only after Redis took it: a crash between repeats, never loses."""
        try:
            with conn.transaction():
                conn.execute(LOCK_TIMEOUT)
                conn.execute(LOCK)
                waiting = conn.execute(WAITING, (BATCH,)).fetchall()
                if waiting:
                    self._send([payload for _, payload in waiting])
                    conn.execute(MARK, ([id_ for id_, _ in waiting],))
        except psycopg.errors.LockNotAvailable:
            return 0
        except RedisError as error:
            if not self._redis_lost:
                log.warning("Redis does not take events, they wait in the table: %s", error)
            self._redis_lost = True
            return 0
        if self._redis_lost and waiting:
            log.warning("Redis takes events again")
            self._redis_lost = False
        self.published += len(waiting)
        return len(waiting)

    def _send(self, payloads: list[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for payload in payloads:
                pipeline.publish(PATTERNS_CHANNEL, payload)
            pipeline.execute()
