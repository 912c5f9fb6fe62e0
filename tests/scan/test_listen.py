"""Events as they come, for `tickstock listen`: live, or change by change from the table."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import DEADLINE, eventually
from tests.e2e.proxy import Proxy
from tests.scan.making import OPENING, change_of, event, payloads, record
from tests.scan.support import on_one_engine
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import TickstockError
from tickstock.redis import PATTERNS_CHANNEL
from tickstock.scan.consumers import Consumer
from tickstock.scan.listen import Changes, Event, Wanted, from_redis, in_words, latest_change
from tickstock.scan.windows import Span

ALL = Wanted()


class Ear(threading.Thread):
    """Hears events until they end; with what error, if so."""

    def __init__(self, events: Iterator[Event]) -> None:
        super().__init__(daemon=True)
        self.heard: list[Event] = []
        self.error: Exception | None = None
        self._events = events

    def run(self) -> None:
        try:
            for each in self._events:
                self.heard.append(each)
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
        " and application_name = 'tickstock listen' and state = 'idle'"
        " and (query like 'listen tickstock%%' or query like '%%e.change >%%')"
    )
    eventually(lambda: fetch_value(conn, query) == 1, "it listens")


def hears(ear: Ear, number: int) -> bool:
    return len(ear.heard) == number


def followed(
    url: str, since: int, stop: threading.Event, wanted: Wanted = ALL, *, most: int = 1_000
) -> Iterator[Event]:
    with connect(url, program="listen") as conn:
        for batch in Changes(conn, since, wanted, stop, most=most).batches():
            yield from (event for _, event in batch if event)


@on_one_engine
def test_what_is_told_of_an_event(url: str, conn: Connection[TupleRow]) -> None:
    stop = threading.Event()
    with listening(followed(url, 0, stop), stop) as ear:
        record(conn, [event("BRK.B", price=493.25)])
        eventually(lambda: ear.heard, "the event")
    assert ear.error is None
    assert ear.heard == [
        {
            "id": fetch_value(conn, "select id from events"),
            "pattern": "Doji",
            "symbol": "BRK.B",
            "timestamp": "2025-11-24T14:30:00Z",
            "direction": "neutral",
            "timeframe": "1min",
            "price": 493.25,
            "change": fetch_value(conn, "select change from events"),
            "strength": 0.5,
            "late": False,
            "retracted": False,
        }
    ]
    words = "2025-11-24 14:30 BRK.B 1min Doji neutral 493.25"
    assert in_words(ear.heard[0]).split() == words.split()
    assert in_words(ear.heard[0] | {"late": True}).split()[-1] == "late"
    assert in_words(ear.heard[0] | {"late": True, "retracted": True}).split()[-1] == "retracted"


TOLD = {
    "id": 1, "change": 1, "symbol": "A", "timeframe": "1min", "timestamp": "2025-11-24T14:30:00Z",
    "pattern": "Doji", "direction": "neutral", "price": 10.5,
}  # fmt: skip


@pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")
def test_from_redis_until_that_goes_away(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        ear = Ear(from_redis(url, stop))
        ear.start()

        def is_heard() -> bool:
            return bool(client.publish(PATTERNS_CHANNEL, "hello"))

        eventually(is_heard, "it listens")
        for other in ("", "\ufffd", "[1]", '{"price": 1}'):
            client.publish(PATTERNS_CHANNEL, other)
        client.publish(PATTERNS_CHANNEL, json.dumps(TOLD))
        eventually(lambda: ear.heard, "the event")
        assert ear.heard == [TOLD]
        assert (
            "what came on tickstock_patterns is no event, and is passed over: b'hello'"
            in caplog.text
        )
    ear.join(DEADLINE)
    assert isinstance(ear.error, TickstockError)
    assert "start again" in ear.error.message


@pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")
def test_from_redis_until_the_connection_is_cut() -> None:
    """Redis does so to who is slow. What it publishes until the next connection would be lost in silence."""
    stop = threading.Event()
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        ear = Ear(from_redis(url, stop))
        ear.start()
        eventually(lambda: client.publish(PATTERNS_CHANNEL, "{}"), "it listens")
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        ear.join(DEADLINE)
    assert isinstance(ear.error, TickstockError)
    assert "start again" in ear.error.message


class Halving(Proxy):
    """Keeps the second half of an event back until it is told to deliver it."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.halved = threading.Event()
        self.rest = threading.Event()

    def _deliver(self, data: bytes, sink: socket.socket) -> None:
        middle = data.find(b'"pattern"')
        if middle > 0:
            super()._deliver(data[:middle], sink)
            self.halved.set()
            self.rest.wait(DEADLINE)
        super()._deliver(data[max(middle, 0) :], sink)


class Looked(threading.Event):
    """Counts how often somebody has looked whether to stop."""

    looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return super().is_set()


@pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")
def test_from_redis_in_two_halves() -> None:
    """As over a network that loses a packet: what is sent again comes later than our patience lasts."""
    stop = Looked()
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        unix_socket = url.removeprefix("unix://").partition("?")[0]
        with Halving(unix_socket) as proxy:
            ear = Ear(from_redis(f"redis://127.0.0.1:{proxy.port}/0", stop))
            ear.start()
            eventually(lambda: client.publish(PATTERNS_CHANNEL, json.dumps(TOLD)), "it listens")
            assert proxy.halved.wait(DEADLINE)
            before = stop.looks
            eventually(lambda: stop.looks > before + 2 or not ear.is_alive(), "patience ends")
            proxy.rest.set()
            client.publish(PATTERNS_CHANNEL, json.dumps(TOLD | {"id": 2}))
            eventually(lambda: len(ear.heard) == 2 or not ear.is_alive(), "both events")
            stop.set()
            ear.join(DEADLINE)
    assert ear.error is None
    assert ear.heard == [TOLD, TOLD | {"id": 2}]


def test_what_was_missed_then_what_comes(url: str, conn: Connection[TupleRow]) -> None:
    record(conn, [event("AWAY"), event("GONE"), event("KEPT")])
    since = change_of(conn, "AWAY")
    stop = threading.Event()
    with listening(followed(url, since, stop, most=1), stop) as ear:
        eventually(lambda: len(ear.heard) == 2, "what is there")
        await_listener(conn)
        record(conn, [event("KEPT", price=11.0)], judged=[Span("GONE", OPENING, OPENING)])
        eventually(lambda: len(ear.heard) == 4, "what changed")
        record(conn, [event("KEPT", price=11.0)])  # changes nothing
        record(conn, [event("NEW")])
        eventually(lambda: len(ear.heard) == 5, "what is new")
    told = [(each["symbol"], each["price"], each["retracted"]) for each in ear.heard]
    assert told[:2] == [("GONE", 10.5, False), ("KEPT", 10.5, False)]
    assert told[2:] == [("GONE", 10.5, True), ("KEPT", 11.0, False), ("NEW", 10.5, False)]
    changes = [each["change"] for each in ear.heard]
    assert changes == sorted(set(changes))


@on_one_engine
def test_nothing_is_missed_or_repeated_while_others_record(
    url: str, conn: Connection[TupleRow]
) -> None:
    """Several record at once, and change what is there, while one follows."""
    record(conn, [])

    def work(scanner: int) -> None:
        with connect(url, program="test") as mine:
            for n in range(60):
                record(mine, [event(f"S{scanner}.{n % 40}", price=n + 1), event("SHARED", price=n)])

    stop = threading.Event()
    with listening(followed(url, 0, stop, most=7), stop) as ear:
        scanners = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for scanner in scanners:
            scanner.start()
        for scanner in scanners:
            scanner.join(DEADLINE)
        last = fetch_value(conn, "select max(change) from events")
        eventually(lambda: ear.heard and ear.heard[-1]["change"] == last, "the last")
    changes = [each["change"] for each in ear.heard]
    assert changes == sorted(set(changes))
    newest = {each["symbol"]: each for each in ear.heard}
    assert sorted(newest.values(), key=lambda each: each["change"]) == payloads(conn)
    assert len(newest) == 3 * 40 + 1


@on_one_engine
def test_only_what_is_wanted(url: str, conn: Connection[TupleRow]) -> None:
    for pattern in ("Doji", "Hammer"):
        for symbol in ("A", "B"):
            for timeframe in ("1min", "5min"):
                record(conn, [event(symbol, pattern=pattern)], timeframe=timeframe)
    events = payloads(conn)
    assert len(events) == 8
    for wanted, number in (
        (Wanted(patterns=["Doji"]), 4),
        (Wanted(symbols=["A", "B"]), 8),
        (Wanted(timeframes=["5min"], symbols=["A"]), 2),
        (Wanted(["Hammer"], ["B"], ["1min"]), 1),
        (Wanted(patterns=["Nothing"]), 0),
    ):
        stop = threading.Event()
        with listening(followed(url, 0, stop, wanted, most=3), stop) as ear:
            expected = list(filter(wanted.holds, events))
            eventually(partial(hears, ear, number), f"{wanted}")
        assert ear.heard == expected


@on_one_engine
def test_who_is_busy_with_an_event_does_not_hold_up_the_queue_of_notifications(
    url: str, conn: Connection[TupleRow]
) -> None:
    record(conn, [])
    stop = threading.Event()
    with connect(url, program="listen") as busy:
        batches = Changes(busy, 0, ALL, stop).batches()
        waiting = threading.Thread(target=next, args=(batches,))
        waiting.start()
        await_listener(conn)
        record(conn, [event("A")])
        waiting.join(DEADLINE)
        assert fetch_value(busy, "select count(*) from pg_listening_channels()") == 0
    stop.set()


@on_one_engine
def test_a_consumer_keeps_its_position(url: str, conn: Connection[TupleRow]) -> None:
    record(conn, [event("OLD")])
    with connect(url, program="listen") as one:
        consumer = Consumer(one, "alerts", latest_change(one))
        assert consumer.heard == change_of(conn, "OLD"), "a new one hears what comes"
        consumer.save(consumer.heard + 5)
        consumer.save(consumer.heard - 3)
        with (
            connect(url, program="listen") as other,
            pytest.raises(TickstockError, match="another listener is at work as consumer alerts"),
        ):
            Consumer(other, "alerts", 0)
        with connect(url, program="listen") as other:
            assert Consumer(other, "trades", 0).heard == 0
    position = consumer.heard
    with connect(url, program="listen") as again:
        assert Consumer(again, "alerts", 0).heard == position == change_of(conn, "OLD") + 5
