"""Events as they come, for `tickstock listen`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import (
    DEADLINE,
    bar,
    drain,
    eventually,
    new_york,
    on_one_engine,
    signalling,
    terminate,
    write,
)
from tickstock.db.connection import fetch_value
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import PATTERNS_CHANNEL
from tickstock.scan.listen import Event, from_postgres, from_redis, in_words
from tickstock.scan.scanner import Scanner

OPENING = new_york("2025-07-01 09:30")


class Ear(threading.Thread):
    """Hears events until they end; with what error, if so."""

    def __init__(self, events: Iterator[Event]) -> None:
        super().__init__(daemon=True)
        self.heard: list[Event] = []
        self.error: Exception | None = None
        self._events = events

    def run(self) -> None:
        try:
            self.heard.extend(self._events)
        except Exception as error:
            self.error = error


@contextmanager
def listening(events: Iterator[Event], stop: threading.Event) -> Iterator[Ear]:
    ear = Ear(events)
    ear.start()
    try:
        yield ear
    finally:
        stop.set()
        ear.join(DEADLINE)
    assert not ear.is_alive()


def await_listener(conn: Connection[TupleRow]) -> None:
    query = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'tickstock listen' and query like 'listen tickstock%%' and state = 'idle'"
    )
    eventually(lambda: fetch_value(conn, query) == 1, "it listens")


@on_one_engine
def test_from_postgres(url: str, conn: Connection[TupleRow]) -> None:
    stop = threading.Event()
    with listening(from_postgres(url, stop), stop) as ear:
        await_listener(conn)
        write(conn, bar("BRK.B", OPENING, "493.25"))
        drain(conn, Scanner([signalling("Doji")], to_redis=False))
        eventually(lambda: ear.heard, "the event")
    assert ear.error is None
    assert ear.heard == [
        {
            "id": fetch_value(conn, "select id from events"),
            "pattern": "Doji",
            "symbol": "BRK.B",
            "timestamp": "2025-07-01T13:30:00Z",
            "direction": "neutral",
            "timeframe": "1min",
            "price": 493.25,
        }
    ]
    words = in_words(ear.heard[0])
    assert words.split() == ["2025-07-01", "13:30", "BRK.B", "1min", "Doji", "neutral", "493.25"]


@on_one_engine
def test_a_database_that_goes_away_is_an_error(url: str, conn: Connection[TupleRow]) -> None:
    stop = threading.Event()
    with listening(from_postgres(url, stop), stop) as ear:
        await_listener(conn)
        assert terminate(conn, "listen") == 1
        ear.join(DEADLINE)
    assert isinstance(ear.error, DatabaseUnavailableError)
    assert "start again" in ear.error.message


@pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")
def test_from_redis_until_that_goes_away() -> None:
    stop = threading.Event()
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        ear = Ear(from_redis(url, stop))
        ear.start()

        def is_heard() -> bool:
            return bool(client.publish(PATTERNS_CHANNEL, '{"price": 10.50}'))

        eventually(is_heard, "it listens")
        eventually(lambda: ear.heard, "the event")
        assert ear.heard == [{"price": 10.5}]
    ear.join(DEADLINE)
    assert isinstance(ear.error, TickstockError)
    assert "start again" in ear.error.message
