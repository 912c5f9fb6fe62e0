"""The command `tickstock listen`: consumers that resume, and programs that get each event."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.e2e.program import (
    DEADLINE,
    Program,
    command,
    environment,
    eventually,
    run,
    running,
    until,
)
from tests.scan.making import change_of, event, payloads, record
from tests.scan.support import on_one_engine, terminate
from tickstock.db.connection import fetch_value
from tickstock.errors import DatabaseUnavailableError
from tickstock.patterns import discover
from tickstock.scan.catalog import Catalog

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
def test_without_a_position_it_prints_what_comes_and_heeds_no_forged_notification(
    url: str, conn: Connection[TupleRow]
) -> None:
    record(conn, [event("OLD")])
    with running("listen", "--json", TICKSTOCK_DATABASE_URL=url) as listener:
        await_reading(url)
        conn.execute("notify tickstock_patterns, 'hello'")
        conn.execute("notify tickstock_patterns")
        record(conn, [event("NEW")])
        eventually(lambda: listener.output, "what comes")
        assert listener.stop() == 0
    assert [json.loads(line) for line in listener.output] == payloads(conn)[1:]


@on_one_engine
def test_who_does_not_read_what_it_prints_does_not_hold_up_the_queue_of_notifications(
    url: str, conn: Connection[TupleRow]
) -> None:
    """As `tickstock listen | less` does: the queue is the server's, and full it stops all who notify."""
    with subprocess.Popen(
        command("listen", "--json"),
        stdout=subprocess.PIPE,
        env=environment(TICKSTOCK_DATABASE_URL=url),
    ) as listener:
        try:
            await_reading(url)
            record(conn, [event(f"S{number}") for number in range(5_000)])
            usage = "select pg_notification_queue_usage()"
            eventually(lambda: fetch_value(conn, usage) == 0, "the queue is empty")
        finally:
            listener.kill()


def await_reading(url: str) -> None:
    """Until the listener has its position."""
    until(
        url,
        "select exists (select from pg_stat_activity where datname = current_database()"
        " and application_name = 'tickstock listen'"
        " and (query like 'listen tickstock%%' or query like '%%e.change >%%'))",
    )


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
def test_a_program_may_take_longer_than_the_database_lets_sessions_idle(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    """Else its event would be handed over again at each start, and nothing after it."""
    record(conn, [event("A")])
    setting = sql.SQL("alter database {} set idle_session_timeout = '500ms'")
    conn.execute(setting.format(sql.Identifier(conn.info.dbname)))
    with consuming(url, "--exec", program(tmp_path, WAIT)) as listener:
        eventually((tmp_path / "begun").exists, "the program runs")
        until(
            url,
            "select not exists (select from pg_stat_activity where datname = current_database()"
            " and application_name = 'tickstock listen' and clock_timestamp() - state_change < '1 s')",
        )
        (tmp_path / "go").touch()
        eventually(lambda: heard(conn) == change_of(conn, "A"), "it is taken")
        assert listener.stop() == 0


@on_one_engine
def test_nobody_else_hands_over_while_the_program_of_one_that_was_killed_still_runs(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    record(conn, [event("A")])
    with consuming(url, "--exec", program(tmp_path, WAIT)) as listener:
        eventually((tmp_path / "begun").exists, "the program runs")
        listener.process.kill()
        listener.process.wait(DEADLINE)
        other = run("listen", "--consumer", "c", TICKSTOCK_DATABASE_URL=url)
        (tmp_path / "go").touch()
        assert "another listener is at work as consumer c, or a program" in other.stderr
    eventually(lambda: symbols(tmp_path) == ["A"], "the program has taken it")
    free = """
        select not exists (select from pg_stat_activity
        where datname = current_database() and application_name = 'tickstock listen')"""
    until(url, free)
    with consuming(url, "--exec", program(tmp_path, WAIT)) as listener:
        eventually(lambda: heard(conn) == change_of(conn, "A"), "it is taken, once more")
        assert listener.stop() == 0


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


@on_one_engine
@pytest.mark.parametrize("since", [(), ("--since", "0")])
def test_a_pattern_that_nobody_knows_is_told(
    url: str, conn: Connection[TupleRow], since: tuple[str, ...]
) -> None:
    Catalog(discover()).tell(conn)
    names = ("--pattern", "Hammer", "--pattern", "doji", "--pattern", "Hamer")
    with running("listen", *since, *names, TICKSTOCK_DATABASE_URL=url) as listener:
        listener.await_error("named Hamer so far")
        assert listener.stop() == 0
    said = "".join(listener.errors)
    assert "named doji so far; did you mean Doji?" in said
    assert "Hammer" not in said


@on_one_engine
def test_a_position_that_no_event_has_reached_is_told(url: str, conn: Connection[TupleRow]) -> None:
    record(conn, [event("A")])
    latest = change_of(conn, "A")
    with running("listen", "--since", str(latest), TICKSTOCK_DATABASE_URL=url) as listener:
        await_reading(url)
        assert listener.stop() == 0
        assert listener.errors == []
    with running("listen", "--since", str(latest + 7), TICKSTOCK_DATABASE_URL=url) as listener:
        listener.await_error(f"the latest change of an event is {latest}: nothing comes before")
        assert listener.stop() == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--exec", "cat"), 2, "--exec needs --consumer NAME"),
        (("--exec", "/nowhere/at-all", "--consumer", "c"), 1, "no such program"),
        (("--exec", "cat 'x", "--consumer", "c"), 1, "can't be read"),
        (("--exec", "", "--consumer", "c"), 1, "no such program"),
        (("--since", "-1"), 2, "not in the range"),
        (("--since", str(2**63)), 2, "not in the range"),
        (("--consumer", " "), 2, "--consumer needs a name"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], code: int, said: str) -> None:
    done = run("listen", *options)
    assert done.returncode == code
    assert said in done.stderr
