"""Events as they come: from Redis, or change by change from the table."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tickstock.db.connection import first_line
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import PATTERNS_CHANNEL, RedisError, require

log = logging.getLogger(__name__)

Event = dict[str, Any]
"""What tickstock.event_payload() tells of an event."""

TOLD = {"id", "change", "symbol", "timeframe", "timestamp", "pattern", "direction", "price"}
"""What each event tells, at least."""
POLL = 0.2
"""Seconds after which a quiet channel lets us look at the stop event."""
BATCH = 1_000

LATEST = "select coalesce(max(change), 0) from events"
# Of what is not wanted only the change is read, so that it is passed over for good.
CHANGES = """
select e.change, case when (%(patterns)s::text[] is null or e.pattern = any(%(patterns)s))
    and (%(symbols)s::text[] is null or e.symbol = any(%(symbols)s))
    and (%(timeframes)s::text[] is null or e.timeframe = any(%(timeframes)s))
  then tickstock.event_payload(e) end
from events e where e.change > %(since)s order by e.change limit %(most)s
"""


@dataclass(frozen=True)
class Wanted:
    """Which events: empty means all."""

    patterns: Sequence[str] = ()
    symbols: Sequence[str] = ()
    timeframes: Sequence[str] = ()

    def holds(self, event: Event) -> bool:
        return all(
            not some or event[name] in some
            for name, some in (
                ("pattern", self.patterns),
                ("symbol", self.symbols),
                ("timeframe", self.timeframes),
            )
        )


def from_redis(url: str, stop: threading.Event) -> Iterator[Event]:
    """Events published on the channel `tickstock_patterns` from now on."""
    connection = require(url)
    # One that is cut is not made anew in silence: the next would lack what was published in between.
    # One with half a message is not cut, nor made anew: the rest is still to come.
    connection.set_retry(Retry(NoBackoff(), 0, supported_errors=(RedisConnectionError,)))
    # redis-py leaves this method untyped
    with connection.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(PATTERNS_CHANNEL)
        try:
            while not stop.is_set():
                try:
                    message = channel.get_message(timeout=POLL)
                except RedisTimeoutError:  # within a message: it is read from its beginning again
                    continue
                if message is not None and (event := _event_in(message["data"])):
                    yield event
        except RedisError as error:
            raise TickstockError(
                f"Redis went away while listening: {str(error).rstrip('.')}. Events are kept in "
                "the table events; start again to hear new ones."
            ) from error


def _event_in(data: bytes) -> Event | None:
    """None, and a warning, for what somebody else has published there."""
    with suppress(ValueError):
        event = orjson.loads(data)
        if isinstance(event, dict) and event.keys() >= TOLD:
            return event
    log.warning("what came on %s is no event, and is passed over: %.80r", PATTERNS_CHANNEL, data)
    return None


@contextmanager
def telling_of_loss() -> Iterator[None]:
    """A database that goes away within the block becomes DatabaseUnavailableError."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"the database went away while listening: {first_line(error)}. Events are kept in "
            "the table events; start again to hear new ones."
        ) from error


class Changed(NamedTuple):
    change: int
    event: Event | None
    """None for one that is not wanted."""


class Changes:
    """Events in the order of their changes, from the table; without gap, each change at most once.

    An event that changed several times while nobody looked comes once, as it is now. Changes become
    visible in the order of their numbers (see tickstock.record_events): nothing appears later behind
    one that has been seen.
    """

    def __init__(
        self,
        conn: Connection[TupleRow],
        since: int,
        wanted: Wanted,
        stop: threading.Event,
        *,
        most: int = BATCH,
    ) -> None:
        """most: in a batch. Who takes long with an event wants few: others change meanwhile."""
        self._conn = conn
        self._since = since
        self._wanted = {
            "patterns": list(wanted.patterns) or None,
            "symbols": list(wanted.symbols) or None,
            "timeframes": list(wanted.timeframes) or None,
        }
        self._stop = stop
        self._most = most

    def batches(self) -> Iterator[list[Changed]]:
        """What comes after `since`, never an empty list, until `stop` is set."""
        while not self._stop.is_set() and (rows := self._read() or self._await()):
            self._since = rows[-1].change
            yield rows

    def _read(self) -> list[Changed]:
        asked = {"since": self._since, "most": self._most, **self._wanted}
        rows = self._conn.execute(CHANGES, asked)
        return [Changed(change, orjson.loads(told) if told else None) for change, told in rows]

    def _await(self) -> list[Changed]:
        """What comes next; nothing if `stop` is set before.

        We listen only while we wait: a session that listens and does not read would keep the server
        from emptying its queue of notifications, and a full queue stops everybody who notifies.
        """
        self._conn.execute("listen tickstock_patterns")
        try:
            while not self._stop.is_set():
                if rows := self._read():
                    return rows
                for _ in self._conn.notifies(timeout=POLL, stop_after=1):
                    pass
            return []
        finally:
            if not self._conn.closed:
                self._conn.execute("unlisten tickstock_patterns")


def latest_change(conn: Connection[TupleRow]) -> int:
    """The change of an event that came last; 0 where there is none."""
    row = conn.execute(LATEST).fetchone()
    return int(row[0]) if row else 0


def in_words(event: Event) -> str:
    """An event as a line for people. Times are UTC."""
    remark = "retracted" if event.get("retracted") else "late" if event.get("late") else ""
    return (
        f"{event['timestamp'][:16].replace('T', ' ')}  {event['symbol']:<8} {event['timeframe']:<7} "
        f"{event['pattern']:<20} {event['direction']:<7} {event['price']:>9}  {remark}"
    ).rstrip()
