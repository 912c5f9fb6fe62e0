"""Events as they come, from Redis or from Postgres."""

import threading
from collections.abc import Iterator
from typing import Any, cast

import orjson
import psycopg

from tickstock.db.connection import connect, first_line
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import PATTERNS_CHANNEL, RedisError, require

Event = dict[str, Any]

POLL = 0.2
"""Seconds after which a quiet channel lets us look at the stop event."""


def from_postgres(url: str, stop: threading.Event) -> Iterator[Event]:
    """Events notified on the channel `tickstock_patterns` from now on."""
    with connect(url, program="listen") as conn:
        conn.execute("listen tickstock_patterns")
        try:
            while not stop.is_set():
                for notify in conn.notifies(timeout=POLL):
                    yield cast(Event, orjson.loads(notify.payload))
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(
                f"the database went away while listening: {first_line(error)}. Events are kept in "
                "the table events; start again to hear new ones."
            ) from error


def from_redis(url: str, stop: threading.Event) -> Iterator[Event]:
    """Events published on the channel `tickstock_patterns` from now on."""
    # redis-py leaves this method untyped
    with require(url).pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(PATTERNS_CHANNEL)
        try:
            while not stop.is_set():
                message = channel.get_message(timeout=POLL)
                if message is not None:
                    yield cast(Event, orjson.loads(message["data"]))
        except RedisError as error:
            raise TickstockError(
                f"Redis went away while listening: {error}. Events are kept in the table events; "
                "start again to hear new ones."
            ) from error


def in_words(event: Event) -> str:
    """An event as a line for people. Times are UTC."""
    return (
        f"{event['timestamp'][:16].replace('T', ' ')}  {event['symbol']:<8} {event['timeframe']:<7} "
        f"{event['pattern']:<16} {event['direction']:<7} {event['price']}"
    )
