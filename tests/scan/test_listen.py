"""Events as they come, for `tickstock listen`: live, or change by change from the table."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import DEADLINE, Program, eventually, run, running
from tests.scan.making import OPENING, event, record
from tests.scan.support import on_one_engine, terminate
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import PATTERNS_CHANNEL
from tickstock.scan.consumers import Consumer
from tickstock.scan.listen import Changes, Event, Wanted, from_postgres, from_redis, in_words
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


def payloads(conn: Connection[TupleRow]) -> list[Event]:
    query = "select tickstock.event_payload(e)::text from events e order by change"
    return [json.loads(payload) for (payload,) in conn.execute(query)]


def change_of(conn: Connection[TupleRow], symbol: str) -> int:
    return int(fetch_value(conn, "select change from events where symbol = %s", symbol))


@on_one_engine
def test_from_postgres(url: str, conn: Connection[TupleRow]) -> None:
    stop = threading.Event()
    with listening(from_postgres(url, stop), stop) as ear:
        await_listener(conn)
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
        consumer = Consumer(one, "alerts", None)
        assert consumer.heard == change_of(conn, "OLD"), "a new one hears what comes"
        consumer.save(consumer.heard + 5)
        consumer.save(consumer.heard - 3)
        with (
            connect(url, program="listen") as other,
            pytest.raises(TickstockError, match="another listener is at work as consumer alerts"),
        ):
            Consumer(other, "alerts", None)
        with connect(url, program="listen") as other:
            assert Consumer(other, "trades", 0).heard == 0
    position = consumer.heard
    with connect(url, program="listen") as again:
        assert Consumer(again, "alerts", 0).heard == position == change_of(conn, "OLD") + 5


# --- The command.

TAKE = """#!/bin/sh
cat >> {folder}/taken
"""
# Fails as often as there are lines in the file `failures`; takes one of them away each time.
FAIL_AT_FIRST = """#!/bin/sh
if [ -s {folder}/failures ]; then sed -i 1d {folder}/failures; exit 3; fi
cat >> {folder}/taken
"""
WAIT = """#!/bin/sh
cut -d' ' -f6 /proc/$$/stat > {folder}/session
touch {folder}/begun
while [ ! -e {folder}/go ]; do sleep 0.02; done
cat >> {folder}/taken
"""
# Hangs at first, and does not end when it is asked to.
HANG = """#!/bin/sh
if [ -s {folder}/failures ]; then
  sed -i 1d {folder}/failures; trap '' TERM; sleep 600 & echo $! > {folder}/child; wait
fi
cat >> {folder}/taken
"""


def program(folder: Path, text: str) -> str:
    path = folder / "program.sh"
    path.write_text(text.format(folder=folder))
    path.chmod(0o700)
    return str(path)


def taken(folder: Path) -> list[Any]:
    file = folder / "taken"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def symbols(folder: Path) -> list[str]:
    return [each["symbol"] for each in taken(folder)]


@contextmanager
def consuming(url: str, *options: str) -> Iterator[Program]:
    arguments = ("listen", "--consumer", "c", "--since", "0", *options)
    with running(*arguments, TICKSTOCK_DATABASE_URL=url) as listener:
        yield listener


def heard(conn: Connection[TupleRow]) -> int | None:
    found = fetch_value(conn, "select heard from consumers where consumer = 'c'")
    return None if found is None else int(found)


@on_one_engine
def test_listen_since_prints_json(url: str, conn: Connection[TupleRow]) -> None:
    record(conn, [event("A")])
    settings = {"TICKSTOCK_DATABASE_URL": url, "TICKSTOCK_REDIS_URL": "redis://127.0.0.1:1/0"}
    with running("listen", "--since", "0", "--json", **settings) as listener:
        eventually(lambda: listener.output, "what is there")
        record(conn, [event("B", pattern="Hammer")])
        eventually(lambda: len(listener.output) == 2, "what comes")
        assert listener.stop() == 0
    assert [json.loads(line) for line in listener.output] == payloads(conn)


@on_one_engine
def test_a_consumer_resumes_by_itself(url: str, conn: Connection[TupleRow]) -> None:
    record(conn, [event("A"), event("B")])
    with consuming(url) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "B"), "both are heard")
        second = run("listen", "--consumer", "c", TICKSTOCK_DATABASE_URL=url)
        assert second.returncode == 1
        assert "another listener is at work as consumer c" in second.stderr
        assert listener.stop() == 0
        assert len(listener.output) == 2
    record(conn, [event("C")])
    with consuming(url) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "C"), "it is heard")
        assert listener.stop() == 0
        assert len(listener.output) == 1
        assert " C " in listener.output[0]


@on_one_engine
def test_a_consumer_that_loses_the_database_ends_and_resumes_later(
    url: str, conn: Connection[TupleRow]
) -> None:
    record(conn, [event("A")])
    with consuming(url) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "A"), "it is heard")
        assert terminate(conn, "listen") == 1
        assert listener.wait() == DatabaseUnavailableError.exit_code
        assert "start again" in listener.errors[-1]
    record(conn, [event("B")])
    with consuming(url) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "B"), "it is heard")
        listener.stop()
        assert [line.split()[2] for line in listener.output] == ["B"]


@on_one_engine
def test_a_program_gets_each_event_once(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    command = program(tmp_path, TAKE)
    record(conn, [event("A"), event("B"), event("NOT", pattern="Hammer")])
    with consuming(url, "--exec", command, "--pattern", "Doji") as listener:
        eventually(lambda: len(taken(tmp_path)) == 2, "what is there")
        record(conn, [event("C")])
        eventually(lambda: heard(conn) == change_of(conn, "C"), "what comes")
        assert listener.stop() == 0
    with consuming(url, "--exec", command, "--pattern", "Doji") as listener:
        record(conn, [event("D")])
        eventually(lambda: heard(conn) == change_of(conn, "D"), "what comes later")
        assert listener.stop() == 0
    assert taken(tmp_path) == [each for each in payloads(conn) if each["pattern"] == "Doji"]


@on_one_engine
def test_a_program_that_fails_is_tried_again_then_the_event_is_given_up(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    (tmp_path / "failures").write_text("once\ntwice\n")
    record(conn, [event("A"), event("B")])
    with consuming(url, "--exec", program(tmp_path, FAIL_AT_FIRST)) as listener:
        listener.await_error("try 1 of 5: ")
        eventually(lambda: len(taken(tmp_path)) == 2, "both are taken")
        listener.stop()
        assert [line.split("try ")[1][:6] for line in listener.errors if "try " in line] == [
            "1 of 5", "2 of 5",
        ]  # fmt: skip
        assert "program.sh ended with code 3" in "".join(listener.errors)
    assert symbols(tmp_path) == ["A", "B"]

    (tmp_path / "failures").write_text("once\ntwice\n")
    record(conn, [event("GIVEN_UP"), event("NEXT")])
    with consuming(url, "--exec", program(tmp_path, FAIL_AT_FIRST), "--tries", "2") as listener:
        listener.await_error("given up after 2 tries; it stays in the table events")
        eventually(lambda: heard(conn) == change_of(conn, "NEXT"), "the next one is taken")
        assert listener.stop() == 0
    assert symbols(tmp_path) == ["A", "B", "NEXT"]


@on_one_engine
def test_a_program_that_hangs_is_ended_with_what_it_has_started_and_tried_again(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    (tmp_path / "failures").write_text("once\n")
    record(conn, [event("A")])
    command = program(tmp_path, HANG)
    # Long enough for a shell to start, and to take the event, on a machine that is busy.
    with consuming(url, "--exec", command, "--exec-timeout", "3") as listener:
        listener.await_error("try 1 of 5: ")
        assert "took longer than 3 s, and was ended" in "".join(listener.errors)
        child = Path("/proc") / (tmp_path / "child").read_text().strip()
        eventually(lambda: ended(child), "its child has ended")
        eventually(lambda: heard(conn) == change_of(conn, "A"), "it is taken")
        assert listener.stop() == 0
    assert symbols(tmp_path) == ["A"]


def ended(process: Path) -> bool:
    try:
        return ") Z " in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@on_one_engine
def test_the_program_ends_first(url: str, conn: Connection[TupleRow], tmp_path: Path) -> None:
    record(conn, [event("A"), event("B")])
    with consuming(url, "--exec", program(tmp_path, WAIT)) as listener:
        eventually((tmp_path / "begun").exists, "the program runs")
        session = int((tmp_path / "session").read_text())
        assert session != os.getsid(listener.process.pid), "Ctrl-C is not for the program"
        listener.process.terminate()
        other = run("listen", "--consumer", "c", TICKSTOCK_DATABASE_URL=url)
        assert "another listener is at work" in other.stderr, "still: the program runs"
        assert heard(conn) == 0
        (tmp_path / "go").touch()
        assert listener.wait() == 0
    assert symbols(tmp_path) == ["A"]
    assert heard(conn) == change_of(conn, "A")


@on_one_engine
def test_a_second_ctrl_c_ends_the_program_too(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    """Else it would go on while the next start hands the same event to another one."""
    record(conn, [event("A")])

    def ends() -> bool:
        listener.send(signal.SIGINT)
        return listener.process.poll() is not None

    with consuming(url, "--exec", program(tmp_path, WAIT)) as listener:
        eventually((tmp_path / "begun").exists, "the program runs")
        eventually(ends, "it ends at once")
    session = Path("/proc") / (tmp_path / "session").read_text().strip()
    try:
        eventually(lambda: ended(session), "its program has ended")
    finally:
        (tmp_path / "go").touch()
    assert heard(conn) == 0


@on_one_engine
def test_a_stop_between_tries_leaves_the_event_for_the_next_start(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    (tmp_path / "failures").write_text("once\n" * 9)
    record(conn, [event("A")])
    with consuming(url, "--exec", program(tmp_path, FAIL_AT_FIRST)) as listener:
        listener.await_error("try 2 of 5: ")
        assert listener.stop() == 0
    assert heard(conn) == 0
    (tmp_path / "failures").unlink()
    with consuming(url, "--exec", program(tmp_path, FAIL_AT_FIRST)) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "A"), "it is taken")
        listener.stop()
    assert symbols(tmp_path) == ["A"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--exec", "cat"), 2, "--exec needs --consumer NAME"),
        (("--exec", "/nowhere/at-all", "--consumer", "c"), 1, "no such program"),
        (("--exec", "cat 'x", "--consumer", "c"), 1, "can't be read"),
        (("--exec", "", "--consumer", "c"), 1, "no such program"),
        (("--since", "-1"), 2, "not in the range"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], code: int, said: str) -> None:
    done = run("listen", *options)
    assert done.returncode == code
    assert said in done.stderr
