"""The documents, against the code: their SQL runs, their commands exist, their tables are complete."""

import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import click
import numpy as np
import pandas as pd
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

import tickstock
from tests.test_compose import envvars, parse
from tickstock import errors
from tickstock.bars import Bar
from tickstock.cli import main, options, walk
from tickstock.cli import settings as settings_file
from tickstock.cli.ingest import ingest
from tickstock.cli.reference import reference
from tickstock.db.connection import fetch_value
from tickstock.db.writer import write_bars
from tickstock.ingest.forward import minute_payload, payload
from tickstock.ingest.ledger import Complete
from tickstock.patterns import Candles, discover
from tickstock.patterns.evaluate import Chosen, Failures, Hit, live
from tickstock.timeframes import TIMEFRAMES

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md")))
}
README, SQL = DOCUMENTS["README.md"], DOCUMENTS["docs/sql.md"]

VARIABLE = re.compile(r"\b(?:TICKSTOCK|MASSIVE|POLYGON)_[A-Z_]+\b")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the table that follows a heading, without its header; code marks removed."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


# Sample rows: two weeks around Thanksgiving 2025, whose Friday is a half day.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select symbol, ts, p, p + 0.5, p - 0.4, p + 0.1, 100 + extract(minute from ts),
       case when symbol <> 'SPY' then p + 0.05 end, case when symbol = 'SPY' then 7 end
from (values ('AAPL', 270), ('TSLA', 400), ('SPY', 660)) s (symbol, price),
  unnest('{2025-11-20, 2025-11-21, 2025-11-24, 2025-11-25, 2025-11-26, 2025-11-28}'::date[]) day,
  generate_series(timestamp '2000-01-01 09:00', '2000-01-01 16:29', '1 minute') minute,
  lateral (select (day + minute::time) at time zone 'America/New_York' as ts,
                  price + round(5 * sin(extract(epoch from minute) / 3000)::numeric, 2) as p) b
-- A minute in which nobody traded.
where (symbol, minute::time) <> ('TSLA', '11:11')
"""
EVENTS = """
insert into events (pattern, symbol, timeframe, ts, direction, price, details)
select 'Day1Breakout', symbol, '1min', '2025-11-28 15:00+00', direction, 270.5,
       '{"broken": 270, "volume": 150.0, "mean_volume": 60.5}'
from (values ('AAPL', 'long'), ('TSLA', 'short')) e (symbol, direction)
"""


CAME_LIVE = (
    "update ohlcv_1min set came = extract(epoch from ts + interval '62 s' - '2000-01-01 00:00+00')"
)


def load_sample(conn: Connection[TupleRow]) -> None:
    conn.execute(BARS)
    conn.execute(CAME_LIVE)
    conn.execute(EVENTS)
    impossible = Bar(
        "AAPL", datetime(2025, 11, 28, 17, tzinfo=UTC), 1, high=1, low=2, close=1, volume=5
    )
    write_bars(conn, [impossible], source="feed")
    conn.execute("call ohlcv_refresh()")


def results(conn: Connection[TupleRow], block: str) -> Iterator[list[TupleRow]]:
    """The rows of each query in a block."""
    cursor = conn.execute(block.encode())
    while True:
        if cursor.description:
            yield cursor.fetchall()
        if not cursor.nextset():
            return


# The cookbook has a market of its own: tests/test_cookbook.py.
@pytest.mark.parametrize(
    "name", [n for n, text in DOCUMENTS.items() if "```sql" in text and n != "docs/cookbook.md"]
)
def test_sql_runs_and_finds_something(conn: Connection[TupleRow], name: str) -> None:
    load_sample(conn)
    for block in blocks(DOCUMENTS[name], "sql"):
        for rows in results(conn, block):
            assert bool(rows) != ("-- no rows" in block), block


def test_every_relation_and_column_is_explained(conn: Connection[TupleRow]) -> None:
    relations = conn.execute(
        "select table_name, array_agg(column_name::text) from information_schema.columns"
        " where table_schema = 'public' group by 1"
    ).fetchall()
    assert {f"ohlcv_{timeframe}" for timeframe in TIMEFRAMES} <= {name for name, _ in relations}
    explained = set(re.findall(r"`(\w+)`", SQL))
    for relation, columns in relations:
        assert {relation, *columns} <= explained, relation


def test_every_function_is_listed(conn: Connection[TupleRow]) -> None:
    functions = conn.execute(
        "select proname from pg_proc p where pronamespace = 'public'::regnamespace"
        " and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"
    ).fetchall()
    assert functions
    for (name,) in functions:
        assert f"`{name}(" in SQL


def test_payloads_have_the_form_that_is_told(conn: Connection[TupleRow]) -> None:
    event, bar, minute = (
        json.loads(block) for block in blocks(DOCUMENTS["docs/operations.md"], "json")
    )
    others = {"ts": event["timestamp"], "details": {}, "parameters": {}, "detected_at": "now"}
    conn.execute(
        "insert into events overriding system value"
        " select (json_populate_record(null::events, %s)).*",
        (json.dumps(event | others),),
    )
    sent = fetch_value(conn, "select tickstock.event_payload(e) from events e")
    assert json.loads(sent) == event
    ts = datetime.fromisoformat(bar["timestamp"])
    numbers = [bar[name] for name in ("open", "high", "low", "close", "volume")]
    assert json.loads(payload(Bar(bar["symbol"], ts, *numbers))) == bar
    complete = Complete(datetime.fromisoformat(minute["minute"]), minute["bars"])
    at = complete.ts + timedelta(seconds=60 + minute["lag"])
    assert json.loads(minute_payload(complete, at)) == minute


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of tickstock in a document: words after `tickstock`, placeholders left out."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    lines += re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    lines += re.findall(r"`((?:\.venv/bin/)?tickstock [a-z][^`]*)`", text)
    for line in lines:
        words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)
        names = [index for index, word in enumerate(words) if Path(word).name == "tickstock"]
        if names and "docker" not in words and (words := words[names[0] + 1 :]):
            yield words


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist_and_take_these_options(name: str) -> None:
    for words in commands(DOCUMENTS[name]):
        if "COMMAND" not in words:
            parse(words)


def every_command() -> Iterator[click.Command]:
    return (found for _, found in walk(main) if not isinstance(found, click.Group))


def test_changelog_names_every_command() -> None:
    for command in every_command():
        assert re.search(
            rf"`(tickstock|db) (db |patterns )?{command.name}`", DOCUMENTS["CHANGELOG.md"]
        )


def test_the_reference_of_the_command_line_is_current() -> None:
    assert DOCUMENTS["docs/cli.md"] == reference(), (
        "python -m tickstock.cli.reference > docs/cli.md"
    )


def test_the_reference_tells_every_option_and_exit_code() -> None:
    shared, *sections = re.split(r"^## tickstock ", DOCUMENTS["docs/cli.md"], flags=re.MULTILINE)
    told = {section.partition("\n")[0]: section for section in sections}
    leaves = {" ".join(path): found for path, found in walk(main)}
    leaves = {name: each for name, each in leaves.items() if not isinstance(each, click.Group)}
    assert told.keys() == leaves.keys()
    for name, command in leaves.items():
        for option in command.params:
            if isinstance(option, click.Option):
                row = (
                    re.escape(option.opts[0])
                    + r"\b.* "
                    + re.escape(option.help or "").replace(r"\|", r"\\\|")
                )
                assert re.search(row, told[name] + shared), option.opts
                assert option.opts[0] in told[name]
    assert [int(row[0]) for row in rows_of(DOCUMENTS["docs/cli.md"], "Exit codes")] == list(
        errors.EXIT_CODES
    )


def test_settings_of_the_readme_are_all_there_with_their_defaults() -> None:
    """Those that commands share and those of ingest; docs/cli.md tells all."""
    told = {tuple(re.findall(r"`([A-Z]\w+)`", row[1])): row for row in rows_of(README, "Settings")}
    known: set[tuple[str, ...]] = set()
    for option in (*options.SHARED, *ingest.params, *main.params):
        given = option.envvar or ()
        names = (given,) if isinstance(given, str) else tuple(map(str, given))
        if not names:
            continue
        known.add(names)
        row = told[names]
        assert row[0].split("`")[1] in option.opts
        default = option.default if isinstance(option.default, str) else None
        assert (default is None) or row[2] == f"`{default}`"
    others = {names for names, row in told.items() if not row[0]}
    assert told.keys() == known | others
    assert {name for (name,) in others} == set(settings_file.VARIABLES.values())


def test_variables_named_exist() -> None:
    sources = [
        *ROOT.glob("tickstock/**/*.py"),
        *ROOT.glob("scripts/*"),
        *ROOT.glob("tests/**/*.py"),
    ]
    known = {f"TICKSTOCK_TEST_{engine}_URL" for engine in ("COMMUNITY", "APACHE", "POSTGRES")}
    for path in filter(Path.is_file, sources):
        known.update(VARIABLE.findall(path.read_text()))
    for name, text in DOCUMENTS.items():
        assert set(VARIABLE.findall(text)) <= known, name


def test_exit_codes_are_the_code_s() -> None:
    used = {click.UsageError.exit_code, 0} | {
        each.exit_code
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.TickstockError)
    }
    assert sorted(used) == list(errors.EXIT_CODES)
    assert [
        int(code) for code in re.findall(r"\b(\d) \w", (main.help or "").split("Exit codes: ")[1])
    ] == (sorted(used))
    rows = rows_of(DOCUMENTS["docs/operations.md"], "Stopping")
    assert [int(row[0]) for row in rows] == sorted(used)


def test_the_pattern_of_the_readme_works(tmp_path: Path) -> None:
    [source] = blocks(README, "python")
    (tmp_path / "three_up.py").write_text(source)
    [pattern] = [each for each in discover(tmp_path) if each.name == "ThreeUp"]
    asked = Chosen(pattern, pattern.parameters, pattern.candles(pattern.parameters, "5min"))

    def judge(*closes: float) -> list[Hit]:
        column, never = np.array(closes)[:, np.newaxis], np.full(1, np.nan)
        candles = Candles("5min", *(column, column, column, column, column, column), never, never)
        failures = Failures()
        hits = list(live([asked], candles, failures))
        assert failures == Failures()
        return hits

    assert judge(1, 2, 3, 4) == [Hit("ThreeUp", 0, "long", 1.0, {"gain": 3.0})]
    assert judge(1, 2, 2, 4) == []
    assert judge(2, 3, 4) == []


def test_the_python_of_its_page_runs(
    conn: Connection[TupleRow], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_sample(conn)
    monkeypatch.setenv("TICKSTOCK_DATABASE_URL", url)
    found: dict[str, object] = {}
    for block in blocks(DOCUMENTS["docs/python.md"], "python"):
        exec(compile(block, "docs/python.md", "exec"), found)  # noqa: S102
    for name in ("frame", "daily", "closes", "half_hour", "exact", "later", "top"):
        each = found[name]
        assert isinstance(each, pd.DataFrame | pd.Series)
        assert len(each), name
        assert not np.asarray(each.isna()).all(), name


def test_every_function_of_the_python_api_is_told() -> None:
    text = DOCUMENTS["docs/python.md"]
    for name in set(tickstock.__all__) - {"__version__"}:
        assert f"`{name}(" in text
        for parameter in inspect.signature(getattr(tickstock, name)).parameters:
            assert re.search(rf"\b{parameter}\b", text), f"{parameter} of {name}"


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    architecture = DOCUMENTS["docs/architecture.md"].split("## Why each dependency")[1]
    for requirement in (*project["dependencies"], *(each for extra in extras for each in extra)):
        name = re.split(r"[\[<>=;]", requirement)[0].strip()
        if not name.endswith("-stubs") and not name.startswith("types-"):
            assert re.search(rf"\b{name}\b", architecture, re.IGNORECASE), name


def test_folders_named_exist() -> None:
    for text in DOCUMENTS.values():
        for path in re.findall(r"`((?:sql|tests|tickstock|scripts)/[\w/.-]+)`", text):
            assert (ROOT / path).exists(), path


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENTS[name]):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path.read_text()), target


def test_the_picture_is_sound_and_told_in_words() -> None:
    root = ElementTree.parse(ROOT / "docs/pipeline.svg").getroot()  # noqa: S314 - our own file
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert root.findtext("svg:title", namespaces=space)
    assert root.findtext("svg:desc", namespaces=space)
    shown = " ".join("".join(text.itertext()) for text in root.iterfind(".//svg:text", space))
    for name in ("ohlcv_1min", "events", "refused_bars", "tickstock_patterns", "tickstock_data"):
        assert name in shown


def test_readme_gives_the_two_commands_as_promised() -> None:
    assert "\n    scripts/demo        # sets up what it needs, then runs" in README
    assert "\n    scripts/test        # sets up what it needs, then runs" in README
    for name in ("demo", "test"):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o100
    assert envvars(parse(["demo"]).command) == {"TICKSTOCK_DATABASE_URL"}
