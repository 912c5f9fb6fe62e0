"""What every command keeps to: help, options and their variables, what programs read, progress."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest

import tickstock
from tickstock.cli import COMMANDS, main, options, walk
from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import write_bars
from tickstock.simulator import Simulator

from .e2e.hardship import market
from .e2e.program import (
    DEADLINE,
    KEY,
    command,
    environment,
    eventually,
    run,
    running,
)
from .e2e.test_load import flat_file
from .scan.support import on_one_engine
from .simulator.client import Client

NEW_YORK = ZoneInfo("America/New_York")

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
                assert option.multiple == ("ay be repeated." in (option.help or "")), option.opts
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

    history = run("scan", "--from", day, "--json", TICKSTOCK_DATABASE_URL=empty_url)
    assert history.stderr == "", "progress is for a terminal"
    scanned = json.loads(history.stdout)
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
    nothing: dict[str, object] = {"gaps": 0, "still_owed": 0, "failed": [], "not_asked": []}
    assert asked == nothing | dict.fromkeys(new, 0)


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
