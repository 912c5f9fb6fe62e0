"""Publishing events on Redis: at least once each, in the order of their changes, Redis away or not."""

import logging
import threading

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, first_line
from tickstock.errors import DatabaseUnavailableError
from tickstock.redis import EVENTS_KEPT, EVENTS_STREAM, PATTERNS_CHANNEL, RedisError, client

log = logging.getLogger(__name__)

BATCH = 1_000
POLL = 1.0
"""Seconds between looks at the table, and between tries while Redis is away."""

# One publisher at a time, in the order of changes: two would send some events twice, or out of order.
# Waiting is short, and not for long where another one waits for its Redis.
LOCK_TIMEOUT = "set local lock_timeout = '1s'"
NO_LOCK_TIMEOUT = "set local lock_timeout = 0"
LOCK = "select pg_advisory_xact_lock(hashtext('tickstock.publish'))"
# What came before the first Redis was not for it.
BEGIN = "call tickstock.begin_publishing()"
# As text: what travels through Python's floats would lose digits. And as one, a line for each change (JSON
# has no line ends in it): neither here nor on the way to Redis is it cut into thousands of pieces.
WAITING = """
select count(*), max(w.change), string_agg(w.line, E'\\n' order by w.change)
from (
  select e.change, e.change || ' ' || tickstock.event_payload(e) as line
  from events e where e.change > (select up_to from tickstock.publishing) order by e.change limit %s) w
"""
# Changes become visible in the order of their numbers, so one number tells what Redis has. An event
# that has changed since it was read has a new one, and goes out again.
MARK = "update tickstock.publishing set up_to = %s, at = clock_timestamp()"
# A script: one command and one answer for a batch, where twice as many commands would take five times
# as long; and nobody sees half of it. A refusal comes at the first entry, before anything is published.
SEND = r"""
for change, event in string.gmatch(ARGV[3], '(%d+) ([^\n]+)') do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'change', change, 'event', event)
  redis.call('PUBLISH', ARGV[1], event)
end
"""


def begin_publishing(conn: Connection[TupleRow]) -> None:
    """Each change of an event from now on is for Redis; nothing happens where that is so already."""
    conn.execute(BEGIN)


class Publisher(threading.Thread):
    """Publishes changes of events until `stop` is set; `wake` after recording new ones."""

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
                waiting, up_to, lines = conn.execute(WAITING, (BATCH,)).fetchone() or (0, None, "")
                if waiting:
                    self._send(lines)
                    conn.execute(NO_LOCK_TIMEOUT)
                    conn.execute(MARK, (up_to,))
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
        self.published += waiting
        return int(waiting)

    def _send(self, lines: str) -> None:
        """All of them or, where Redis refuses (no memory, a read-only replica), none."""
        self._redis.eval(SEND, 1, EVENTS_STREAM, PATTERNS_CHANNEL, EVENTS_KEPT, lines)
