"""The command line: documented, clear about what went wrong, and silent about secrets."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import tickstock
from tickstock.cli import COMMANDS, main, options, walk
from tickstock.db.connection import connect, fetch_value, parse
from tickstock.db.writer import write_bars
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import client
from tickstock.simulator import RandomMarket, Simulator
from tickstock.timeframes import TIMEFRAMES

from .e2e.hardship import market
from .e2e.program import (
    DEADLINE,
    KEY,
    command,
    environment,
    eventually,
    run,
    running,
    stop_all,
    until,
)
from .e2e.test_load import flat_file
from .simulator.client import Client

on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

NEW_YORK = ZoneInfo("America/New_York")
PASSWORD = "s3cr3t"  # noqa: S105 - it opens nothing

INGEST = ("ingest", "--symbols", "AAPL")
NEEDS_A_SCHEMA = [
    INGEST,
    ("scan",),
    ("listen",),
    ("listen", "--consumer", "c"),
    ("explain", "1"),
    ("chart", "AAPL", "5min"),
    ("patterns", "list"),
    ("load", "-"),
    ("refresh",),
    ("demo", "--seconds", "5"),
    ("db", "status"),
    ("status",),
]


ALL = dict(walk(main))
LEAVES = [path for path, found in ALL.items() if not isinstance(found, click.Group)]


RUN_ON = {("ingest",), ("scan",), ("listen",), ("simulate",), ("refresh",)}
WITHOUT_VARIABLE = {
    # A job that is done once, by somebody who is there.
    ("scan", "--from"),
    ("scan", "--to"),
    ("scan", "--symbol"),
    ("scan", "--timeframe"),
    # It takes files on the command line.
    ("simulate", "--replay"),
    # Asked for by the program that starts the command and reads it.
    ("scan", "--json"),
    ("simulate", "--json"),
    ("refresh", "--json"),
}
OTHER_MEANING = {
    # How many a market has, not which ones.
    ("simulate", "--symbols"),
    ("demo", "--symbols"),
    # A time of day, too.
    ("chart", "--from"),
    ("chart", "--to"),
}
NOT_FOR_PROGRAMS = {
    ("ingest",): "tells nothing but its log: --log-format json, --metrics-port",
    ("chart",): "a picture; programs read candles by SQL or from Python",
    ("demo",): "a show",
    ("patterns", "reference"): "a document",
    ("completion",): "a shell reads it",
    ("db", "shell"): "psql has --csv and more",
}
THREE_UP = """
import numpy as np
from tickstock.patterns import Candles, Found, Parameters, pattern


@pattern("Up", candles=1, timeframes=["5min"])
def up(c: Candles, p: Parameters) -> Found:
    \"\"\"The close is above the open.\"\"\"
    where = c.close[-1] > c.open[-1]
    return Found(where, 1, np.ones(where.shape), {})
"""


def failure(code: int, *arguments: str, **settings: str) -> str:
    """Run a command that must fail with this code; the one line in which it says why."""
    done = run(*arguments, **settings)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert KEY not in said
    assert PASSWORD not in said
    *before, last = done.stderr.splitlines()
    assert last.startswith("Error: "), said
    assert not [line for line in before if line.startswith("Error")]
    return last


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_every_module_is_a_command_and_listed_by_the_first_words_of_its_help() -> None:
    folder = Path(tickstock.__file__).parent / "cli"
    others = {"__init__", "options", "reference", "settings"}
    assert {path.stem for path in folder.glob("*.py")} - others == set(COMMANDS)
    for name, summary in COMMANDS.items():
        assert " ".join((ALL[name,].help or "").split()).startswith(summary.rstrip("."))


def test_help_lists_the_commands_and_imports_none() -> None:
    listing = run("--help").stdout
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", listing, re.MULTILINE)
    heavy = "{'numpy', 'pandas', 'psycopg', 'redis', 'rich', 'asyncio', 'websocket', 'websockets'}"
    program = f"import sys, tickstock.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_a_command_gives_an_example(path: tuple[str, ...]) -> None:
    examples = re.findall(r"^ *Example: (.+)$", ALL[path].help or "", re.MULTILINE)
    assert len(examples) == 1
    assert f"tickstock {' '.join(path)}" in examples[0]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_command_and_each_of_its_options_say_what_they_are_for(path: tuple[str, ...]) -> None:
    assert re.match(r"[A-Z].+[.:]$", (ALL[path].help or "").splitlines()[0])
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").endswith("."), parameter.name


def own_options(path: tuple[str, ...]) -> dict[str, click.Option]:
    """The options of a command by name, but for those that it shares."""
    options_ = (each for each in ALL[path].params if isinstance(each, click.Option))
    shared = {each.opts[0] for each in options.SHARED}
    return {each.opts[0]: each for each in options_ if each.opts[0] not in shared}


def test_options_of_commands_that_run_on_have_a_variable_each() -> None:
    """Named after the option, and after the command unless it is ingest."""
    for path in RUN_ON:
        begins = "TICKSTOCK_" if path == ("ingest",) else f"TICKSTOCK_{path[0].upper()}_"
        for name, option in own_options(path).items():
            if (*path, name) not in WITHOUT_VARIABLE:
                assert option.envvar == begins + name[2:].upper().replace("-", "_"), (path, name)
    for command_name, name in WITHOUT_VARIABLE:
        assert own_options((command_name,))[name].envvar is None


def test_who_runs_until_ctrl_c_is_known_here() -> None:
    said = {path for path in LEAVES if "until Ctrl-C" in str([ALL[path].help, *own_helps(path)])}
    assert said <= RUN_ON


def own_helps(path: tuple[str, ...]) -> list[str | None]:
    return [option.help for option in own_options(path).values()]


def test_an_option_means_the_same_wherever_it_is() -> None:
    kinds: dict[str, dict[tuple[object, ...], tuple[str, ...]]] = {}
    for path in LEAVES:
        for option in ALL[path].params:
            if isinstance(option, click.Option):
                assert option.show_envvar == bool(option.envvar), (path, option.opts)
                assert option.multiple == ("ay be given again." in (option.help or "")), option.opts
                assert [name for name in option.opts if name.startswith("--")] == option.opts
                if (*path, option.opts[0]) not in OTHER_MEANING:
                    kind = type(option.type), option.metavar, option.multiple, option.is_flag
                    kinds.setdefault(option.opts[0], {})[kind] = path
    assert not [name for name, found in kinds.items() if len(found) > 1], kinds


def test_programs_may_read_what_is_told() -> None:
    assert {path for path in LEAVES if "--json" not in own_options(path)} == set(NOT_FOR_PROGRAMS)


@on_one_engine
def test_what_programs_read(empty_url: str, tmp_path: Path) -> None:
    """Each command with --json: nothing but JSON on standard output, an object a line."""
    read = Reader(empty_url)

    migrated = read("db", "migrate")
    assert migrated["engine"] == "postgres"
    assert migrated["applied"][0] == "001-tables.sql"
    assert read("db", "migrate") == {"engine": "postgres", "applied": []}

    bars = [bar for minute in market(2, 120).minutes() for bar in minute.bars]
    file = tmp_path / "2025-11-24.csv"
    file.write_bytes(flat_file(bars))
    new = {
        "received": len(bars),
        "inserted": len(bars),
        "replaced": 0,
        "unchanged": 0,
        "refused": 0,
    }
    known = new | {"inserted": 0, "unchanged": len(bars)}
    assert read("load", str(file)) == {"file": str(file)} | new
    day = str(bars[0].ts.astimezone(NEW_YORK).date())
    assert read("backfill", "--file", str(file)) == {"file": str(file), "day": day} | known
    with connect(empty_url, program="test") as conn:
        marks = fetch_value(conn, "select count(*) from tickstock.dirty")
    assert read("refresh") == {"still_live_half_hours": marks}

    scanned = read("scan", "--from", day)
    assert scanned["symbols"] == 2
    with connect(empty_url, program="test") as conn:
        assert scanned["events"] == fetch_value(conn, "select count(*) from events")
        role = conn.info.user
    assert scanned.keys() == {"symbols", "candles", "events", "retracted"}
    assert read("explain", "1")["event"]["id"] == 1
    told = read("db", "grant", "reader", f"{role}_reader", "--dry-run")
    assert told["applied"] is False
    assert {"says", "sql"} == told["steps"][0].keys()
    assert read("patterns", "show", "NR7")["default"]["parameters"] == {"days": 7.0}
    three_up = tmp_path / "three_up.py"
    three_up.write_text(THREE_UP)
    tried = read("patterns", "test", str(three_up), "--symbol", bars[0].symbol)
    assert tried["pattern"] == "Up"
    assert tried["found"] == tried["long"] <= tried["candles"]

    with Simulator(market(1, 1), keys=[KEY]) as simulator:
        asked = read("backfill", "--feed-url", simulator.url, "--rest-url", simulator.rest_url)
    assert asked == {"gaps": 0, "still_owed": 0} | dict.fromkeys(new, 0)


def test_what_programs_read_of_the_simulator() -> None:
    with running("simulate", "--port", "0", "--symbols", "2", "--json") as simulate:
        eventually(lambda: simulate.output, "the addresses are told")
        told = json.loads(simulate.output[0])
        with Client(told["url"]) as client:
            client.login(told["key"])
        assert simulate.stop() == 0
    assert told["rest_url"].startswith("http://127.0.0.1:")
    assert json.loads(simulate.output[1]) == {"ended": False, "bars_sent": 0, "faults": {}}


class Reader:
    """Runs commands with --json on a database, and reads what they say."""

    def __init__(self, url: str) -> None:
        self._settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}

    def __call__(self, *arguments: str) -> dict[str, Any]:
        done = run(*arguments, "--json", **self._settings)
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(told) == 1
        assert isinstance(told[0], dict)
        return told[0]


@on_one_engine
def test_a_refresh_shows_at_a_terminal_how_far_it_is(url: str) -> None:
    """Held up by another refresher, which is half done, then done."""
    bars = [bar for minute in market(20, 60).minutes() for bar in minute.bars]
    ours, its = pty.openpty()
    with connect(url, program="test") as conn, os.fdopen(ours, "rb", buffering=0) as terminal:
        write_bars(conn, bars, source="feed")
        conn.execute("select pg_advisory_lock(hashtext('tickstock.refresh'))")
        marks = fetch_value(conn, "select count(*) from tickstock.dirty")
        refresh = subprocess.Popen(
            command("refresh"),
            env=environment(TICKSTOCK_DATABASE_URL=url),
            stdout=subprocess.DEVNULL,
            stderr=its,
        )
        os.close(its)
        shown = ""

        def await_share(share: int) -> None:
            nonlocal shown
            deadline = time.monotonic() + DEADLINE
            while f"{share}%" not in shown:
                assert time.monotonic() < deadline, shown
                if select.select([terminal], [], [], 1)[0]:
                    shown += terminal.read(4096).decode()

        try:
            await_share(0)
            conn.execute(
                "delete from tickstock.dirty where id in"
                " (select id from tickstock.dirty order by id limit %s)",
                (marks // 2,),
            )
            await_share(100 * (marks // 2) // marks)
            conn.execute("select pg_advisory_unlock(hashtext('tickstock.refresh'))")
            await_share(100)
            assert refresh.wait(DEADLINE) == 0
        finally:
            refresh.kill()
            refresh.wait()
    assert "refresh  [" in shown


def test_version() -> None:
    assert run("--version").stdout == f"tickstock, version {tickstock.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ingets",), "No such command 'ingets'"),
        (INGEST, "no API key: set MASSIVE_API_KEY"),
        (("ingest", "--api-key", KEY), "which symbols?"),
        (("ingest", "--symbols", "", "--api-key", KEY), "--symbols '' names no ticker"),
        (("ingest", "--symbols", " , ", "--api-key", KEY), "--symbols ' , ' names no ticker"),
        (("load",), "Missing argument 'FILE...'"),
        (("simulate", "--replay"), "--replay takes the files to play"),
        (("simulate", "file.csv"), "--replay takes the files to play"),
        (
            ("simulate", "--fault", "dorp=0.1"),
            ": dorp: no such fault; there are duplicate,",
        ),
        (
            ("simulate", "--fault", "drop=2"),
            ": drop=2.0: the rate of a fault is from 0 to 1",
        ),
        (("simulate", "--fault", "drop"), ": drop is not of the form drop=0.01"),
        (("simulate", "--symbols", "1000000"), ": 1000000 is not in the range"),
        (("listen", "--exec-timeout", "nan"), ": nan is not a number of seconds"),
        (("listen", "--exec-timeout", "inf"), ": inf is not in the range"),
        (("refresh", "--every", "1e9"), ": 1000000000.0 is not in the range"),
    ],
    ids=str,
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    assert said in failure(2, *arguments)


@pytest.mark.parametrize("arguments", [*NEEDS_A_SCHEMA, ("db", "migrate")], ids=" ".join)
def test_no_database(arguments: tuple[str, ...]) -> None:
    with closed_port() as port:
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/market"
        line = failure(3, *arguments, TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY)
    assert line.startswith(f"Error: no database at 127.0.0.1:{port}, database market: ")
    assert "--database-url (TICKSTOCK_DATABASE_URL)" in line


@pytest.mark.parametrize(
    "url",
    [
        PASSWORD,
        f"postgres:/me:{PASSWORD}@127.0.0.1/market",
        f"http://me:{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:x/{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:x@{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:%{PASSWORD}@127.0.0.1/market",
        f"host=127.0.0.1 password='{PASSWORD}",
        f"host=127.0.0.1 password=x {PASSWORD}=y",
        f"postgresql://me:{PASSWORD}@127.0.0.1/market?connect_timeout=soon",
    ],
)
def test_a_database_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        parse(url)
    assert caught.value.message.startswith("the database URL can't be read (")
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize("arguments", [("db", "status"), ("db", "shell")], ids=" ".join)
def test_a_bad_database_url(arguments: tuple[str, ...]) -> None:
    line = failure(3, *arguments, "--database-url", f"postgres:/me:{PASSWORD}@127.0.0.1/market")
    assert line.startswith("Error: the database URL can't be read (")


@on_one_engine
@pytest.mark.parametrize("arguments", NEEDS_A_SCHEMA, ids=" ".join)
def test_no_schema(empty_url: str, arguments: tuple[str, ...]) -> None:
    url = make_conninfo(empty_url, password=PASSWORD)
    line = failure(4, *arguments, TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY)
    assert line.startswith(
        "Error: the database has no tickstock schema: run `tickstock db migrate`"
    )


@on_one_engine
@pytest.mark.parametrize("variable", ["MASSIVE_API_KEY", "POLYGON_API_KEY"])
def test_the_wrong_key(url: str, variable: str) -> None:
    settings = {variable: KEY, "TICKSTOCK_DATABASE_URL": url}
    with Simulator(RandomMarket(2), keys=["another"]) as simulator:
        line = failure(5, *INGEST, "--feed-url", simulator.url, **settings)
    assert "refuses the API key (auth_failed: authentication failed)" in line


@on_one_engine
def test_no_feed(url: str) -> None:
    with closed_port() as port:
        settings = {
            "MASSIVE_API_KEY": KEY,
            "TICKSTOCK_DATABASE_URL": url,
            "TICKSTOCK_FEED_URL": f"ws://127.0.0.1:{port}/stocks",
        }
        line = failure(6, *INGEST, **settings)
    assert line.startswith(f"Error: No feed at ws://127.0.0.1:{port}/stocks: connection refused.")


@pytest.mark.parametrize(
    "redis_url",
    [
        PASSWORD,
        f"http://me:{PASSWORD}@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}/x@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}#x@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}@127.0.0.1:1/0?colour=red",
        f"redis://127.0.0.1:1/0?password={PASSWORD}&socket_timeout=soon",
    ],
)
def test_a_redis_url_that_is_none_is_not_repeated(redis_url: str) -> None:
    with pytest.raises(TickstockError) as caught:
        client(redis_url)
    assert caught.value.message.startswith("--redis-url (TICKSTOCK_REDIS_URL) can't be read;")
    assert PASSWORD not in caught.value.message


@on_one_engine
@pytest.mark.parametrize("arguments", [INGEST, ("scan",), ("listen",)], ids=" ".join)
def test_a_bad_redis_url(url: str, arguments: tuple[str, ...]) -> None:
    settings = {"MASSIVE_API_KEY": KEY, "TICKSTOCK_DATABASE_URL": url}
    line = failure(1, *arguments, TICKSTOCK_REDIS_URL=f"no://me:{PASSWORD}@redis", **settings)
    assert line.startswith("Error: --redis-url (TICKSTOCK_REDIS_URL) can't be read; expected")


def test_no_redis_to_listen_to() -> None:
    with closed_port() as port:
        address = f"redis://127.0.0.1:{port}/0"
        for url in (address.replace("//", f"//me:{PASSWORD}@"), f"{address}?password={PASSWORD}"):
            line = failure(1, "listen", "--redis-url", url)
            assert line.startswith(f"Error: no Redis at {address}: ")


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(1, "simulate", "--port", str(port))
    assert line == (
        f"Error: port {port} on 127.0.0.1 is in use; choose another, or 0 for any that is free"
    )


def test_a_replay_of_nothing() -> None:
    assert "nowhere.csv: no such file" in failure(1, "simulate", "--replay", "nowhere.csv")


def test_the_simulator_misbehaves_as_it_is_told() -> None:
    options = ("--port", "0", "--symbols", "2", "--fault", "max_connections_new=1")
    with running("simulate", *options) as simulate:
        eventually(lambda: len(simulate.output) == 2, "the addresses are told")
        url, rest = (line.split()[0] for line in simulate.output)
        assert rest == url.replace("ws://", "http://").removesuffix("/stocks")
        with Client(url) as client:
            client.login("simulator").subscribe("AM.*")
            assert client.ending()[1] == 1008
        assert simulate.stop() == 0
        assert simulate.output[-1] == "faults: max_connections_new 1\n"


def test_a_folder_of_patterns_that_is_not_there() -> None:
    assert "no folder nowhere" in failure(1, "scan", "--patterns", "nowhere")


@on_one_engine
def test_neither_key_nor_password_are_ever_told(url: str) -> None:
    settings = {
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_DATABASE_URL": make_conninfo(url, password=PASSWORD),
        "TICKSTOCK_REDIS_URL": f"redis://me:{PASSWORD}@127.0.0.1:1/0",
    }
    with (
        Simulator(market(5, 300), keys=[KEY], speed=600) as simulator,
        running("simulate", "--port", "0", "--verbose") as simulate,
        running("scan", "--verbose", **settings) as scan,
        running(
            *INGEST, "--symbols", "*", "--verbose", "--feed-url", simulator.url, **settings
        ) as ingest,
    ):
        until(url, "select events_to_publish > 0 from tickstock.freshness")
        ingest.await_error("Redis does not take bars")
        scan.await_error("Redis does not take events")
        simulate.await_error("simulator listens")
        assert stop_all(simulate, scan, ingest) == [0, 0, 0]
    told = [*scan.errors, *ingest.errors]
    for arguments in (("db", "status"), ("db", "migrate"), ("refresh",)):
        done = run(*arguments, "--verbose", **settings)
        assert done.returncode == 0
        told += [done.stdout, done.stderr]
    assert not [line for line in told if PASSWORD in line or KEY in line]


@on_one_engine
def test_migrate_twice_then_status(empty_url: str) -> None:
    first, second = (run("db", "migrate", TICKSTOCK_DATABASE_URL=empty_url) for _ in range(2))
    assert first.stdout.startswith("engine postgres: applied 001-tables.sql, ")
    assert second.stdout == "engine postgres: nothing to do\n"

    text = run("db", "status", TICKSTOCK_DATABASE_URL=empty_url).stdout
    told = json.loads(run("db", "status", "--json", TICKSTOCK_DATABASE_URL=empty_url).stdout)
    assert text.startswith(f"postgres: PostgreSQL {told['versions']['postgresql']}, schema of")
    assert told["engine"] == told["schema_made_for"] == "postgres"
    assert told["versions"]["tickstock"] == tickstock.__version__
    assert told["versions"]["timescaledb"] is None
    assert told["freshness"]["feed_clock"] is None
    assert re.search(r"^ feed's clock +no bar yet$", text, re.MULTILINE)
    relations = {relation["relation"]: relation for relation in told["relations"]}
    assert set(relations) >= {f"ohlcv_{timeframe}" for timeframe in TIMEFRAMES} | {"events"}
    for name, relation in relations.items():
        assert relation["bytes"] > 0
        assert re.search(rf"^ {re.escape(name)} +[\d?]", text, re.MULTILINE)


@on_one_engine
def test_libpqs_own_variables_name_the_database(url: str) -> None:
    given = {
        "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE",
        "password": "PGPASSWORD",
    }  # fmt: skip
    settings = {given[name]: str(value) for name, value in conninfo_to_dict(url).items()}
    told = json.loads(run("db", "status", "--json", **settings).stdout)
    assert told["engine"] == "postgres"


@on_one_engine
def test_a_shell_where_no_psql_is_on_the_path(url: str, tmp_path: Path) -> None:
    done = run("db", "shell", "-Atc", "select 6 * 7", "--database-url", url, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


@on_one_engine
def test_ctrl_c_in_the_shell_is_psqls_and_the_password_is_not_in_its_arguments(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": make_conninfo(url, password=PASSWORD)}
    shell = subprocess.Popen(
        command("db", "shell", "-c", "select pg_sleep(60)"),
        env=environment(**settings),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(url, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'", 1)
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    assert len(children) == 1
    assert PASSWORD.encode() not in Path(f"/proc/{children[0]}/cmdline").read_bytes()
    assert f"PGPASSWORD={PASSWORD}".encode() in Path(f"/proc/{children[0]}/environ").read_bytes()
    os.killpg(shell.pid, signal.SIGINT)
    _, said = shell.communicate(timeout=DEADLINE)
    assert b"canceling statement due to user request" in said
    assert b"Aborted!" not in said
    assert shell.returncode == 1  # psql's own
