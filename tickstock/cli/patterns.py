"""`tickstock patterns`."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import completion, options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.read import require_symbol
from tickstock.db.source import LIBPQ_VARIABLES
from tickstock.errors import TickstockError
from tickstock.patterns import Pattern, SqlPattern, discover
from tickstock.patterns.discovery import BrokenFileError, load, where_in
from tickstock.patterns.reference import (
    candles_of,
    definition_of,
    kind_of,
    parameters_of,
    reference,
    timeframes_of,
    value_of,
)
from tickstock.patterns.settings import choose
from tickstock.scan.catalog import settings_of
from tickstock.scan.trial import (
    Market,
    Outcome,
    Remembering,
    on_stored_candles,
    symbols_with_bars,
)
from tickstock.scan.watch import telling_of_slow_patterns
from tickstock.scan.windows import complete_up_to

REMEDY = "Correct it in the table patterns"
SETTINGS = "select pattern, enabled, timeframes, parameters from patterns"


class Setting(NamedTuple):
    """How the table patterns sets a pattern; without a row, or without a database, by default."""

    enabled: bool = True
    timeframes: list[str] | None = None
    parameters: dict[str, float] = {}  # noqa: RUF012 - never written to


@click.group()
def patterns() -> None:
    """List patterns, describe one, try out your own."""


@patterns.command("list")
@options.as_json("One JSON object a line.")
@options.patterns_folder
@options.database_url
def list_(as_json: bool, folder: Path | None, database_url: str | None) -> None:
    """List the patterns with kind, timeframes and parameters: those set in the database, else defaults.

    \b
    Example: tickstock patterns list
    """
    options.set_up_logging(logging.WARNING)
    settings = _settings(database_url)
    for pattern in discover(folder):
        told = _told(pattern, settings.get(pattern.name, Setting()))
        if as_json:
            click.echo(orjson.dumps(told))
            continue
        state = "on " if told["enabled"] else "off"
        parameters = parameters_of(told["parameters"])
        click.echo(
            f"{pattern.name:<22} {told['kind']:<6} {state}  {timeframes_of(told['timeframes']):<24} "
            f"{'' if parameters == 'none' else parameters}".rstrip()
        )
        for problem in told["problems"]:
            click.echo(f"{'':<22} not usable: {problem}")


@patterns.command()
@click.argument("name", shell_complete=completion.patterns)
@options.as_json()
@options.patterns_folder
@options.database_url
def show(name: str, as_json: bool, folder: Path | None, database_url: str | None) -> None:
    """Describe a pattern: definition, formula, parameters, and how it is set.

    \b
    Example: tickstock patterns show Hammer
    """
    options.set_up_logging(logging.WARNING)
    found = {each.name.lower(): each for each in discover(folder)}
    pattern = found.get(name.lower())
    if pattern is None:
        raise TickstockError(f"no pattern is named {name}: `tickstock patterns list` names them")
    settings = _settings(database_url)
    told = _told(pattern, settings.get(pattern.name, Setting()))
    if as_json:
        usual = {"timeframes": pattern.timeframes, "parameters": pattern.parameters}
        told |= {"definition": definition_of(pattern), "default": usual}
        click.echo(orjson.dumps(told))
        return
    click.echo(f"{pattern.name}\n\n{definition_of(pattern)}\n")
    for label, text in (
        ("made of", told["kind"]),
        ("source", pattern.source or "none told"),
        ("candles", candles_of(pattern)),
        ("timeframes", _beside(told["timeframes"], list(pattern.timeframes))),
        ("enabled", "yes" if told["enabled"] else "no"),
        *(("not usable", problem) for problem in told["problems"]),
    ):
        click.echo(f"{label:<12}{text}")
    for parameter, default in pattern.parameters.items():
        value = told["parameters"][parameter]
        changed = f", default {value_of(default)}" if value != default else ""
        click.echo(f"{'parameter':<12}{parameter} = {value_of(value)}{changed}")


@patterns.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--symbol",
    "symbols",
    multiple=True,
    metavar="SYMBOL",
    help="Try it on this symbol. May be repeated. Default: the five with the largest turnover.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=36_500),
    default=30,
    show_default=True,
    metavar="N",
    help="Try it on the last N days; of a random market at most 150.",
)
@options.as_json("One JSON object a line, one for each pattern and timeframe.")
@options.pattern_timeout
@options.database_url
def test(
    file: Path,
    symbols: tuple[str, ...],
    days: int,
    as_json: bool,
    pattern_timeout: float,
    database_url: str | None,
) -> None:
    """Try out a pattern file (*.py, *.sql): report errors, and how often it fires.

    It runs on the latest complete candles of the given database. Without a database it runs on a
    random market of five symbols; patterns in SQL need a database. Nothing is written.

    \b
    Example: tickstock patterns test patterns/three_up.py
    """
    options.set_up_logging(logging.WARNING)
    if file.suffix not in (".py", ".sql"):
        raise TickstockError(f"{file}: a pattern is in a file *.py or *.sql")
    try:
        found = load(file)
    except BrokenFileError as error:
        raise TickstockError(str(error)) from None
    ours = discover()
    own = _own(file, found, ours)
    with _database(database_url) as conn:
        if conn is None and any(isinstance(each, SqlPattern) for each in own):
            well = f"{file} declares a valid pattern. To try a pattern in SQL, give --database-url."
            click.echo(well, err=as_json)
            return
        market = Market(5, days)
        chosen = list(symbols) or (symbols_with_bars(conn, 5) if conn else [])
        if conn and not any(complete_up_to(conn, chosen).values()):
            raise TickstockError(
                "the database has no bars to try it on: load some, or run it without a database"
            )
        if conn:
            for symbol in symbols:
                require_symbol(conn, symbol)
        where = ", ".join(chosen) if conn else "a random market of five symbols"
        for pattern in own:
            failures = Remembering()
            outcomes = (
                on_stored_candles(
                    conn, pattern, chosen, days, failures, pattern_timeout=pattern_timeout
                )
                if conn
                else market.try_out(pattern, failures)
            )
            with telling_of_slow_patterns(pattern_timeout):
                if as_json:
                    _tell(pattern, outcomes)
                else:
                    click.echo(
                        f"{pattern.name}: {pattern.summary}\non {where}, {counted(days, 'day')}\n"
                    )
                    _show(outcomes)
            _raise_first(file, pattern, failures)


@patterns.command("reference")
def reference_() -> None:
    """Print the reference of all patterns that come with tickstock, in Markdown.

    \b
    Example: tickstock patterns reference > docs/patterns.md
    """
    click.echo(reference(discover()), nl=False)


def _own(file: Path, found: list[Pattern], ours: list[Pattern]) -> list[Pattern]:
    """Those that a scanner would take from the file. TickstockError for what it would leave out."""
    known = {each.name: each for each in ours}
    own = [each for each in found if known.get(each.name) is not each]
    if not own:
        raise TickstockError(f"{file}: it declares no pattern")
    for each in own:
        if known.setdefault(each.name, each) is not each:
            raise TickstockError(f"{file}: there is a pattern {each.name} already: rename this one")
    return own


@contextmanager
def _database(url: str | None) -> Iterator[Connection[TupleRow] | None]:
    """A connection that only reads, to the database that is given; None where none is."""
    if not url and not any(os.environ.get(variable) for variable in LIBPQ_VARIABLES):
        yield None
        return
    with connect(url or "", program="patterns") as conn:
        require_schema(conn)
        conn.read_only = True
        yield conn


def _settings(url: str | None) -> dict[str, Setting]:
    with _database(url) as conn:
        rows = conn.execute(SETTINGS) if conn else ()
        return {name: Setting(*setting) for name, *setting in rows}


def _told(pattern: Pattern, setting: Setting) -> dict[str, Any]:
    default = list(pattern.timeframes)
    _, problems = choose([pattern], list(settings_of(pattern.name, *setting)))
    return {
        "pattern": pattern.name,
        "kind": kind_of(pattern),
        "summary": pattern.summary,
        "source": pattern.source,
        "enabled": setting.enabled,
        "timeframes": default if setting.timeframes is None else setting.timeframes,
        "parameters": {**pattern.parameters, **setting.parameters},
        "problems": [f"{problem}. {REMEDY}" for problem in problems],
    }


def _beside(timeframes: list[str], default: list[str]) -> str:
    changed = f" (default: {timeframes_of(default)})" if timeframes != default else ""
    return timeframes_of(timeframes) + changed


def _tell(pattern: Pattern, outcomes: Iterator[Outcome]) -> None:
    for each in outcomes:
        latest = each.hits[-1]._asdict() if each.hits else None
        told = {
            "pattern": pattern.name,
            "timeframe": each.timeframe,
            "candles": each.candles,
            "found": len(each.hits),
            **{name: each.directions[name] for name in ("long", "short", "neutral")},
            "latest": latest,
        }
        click.echo(orjson.dumps(told, option=orjson.OPT_UTC_Z))


def _show(outcomes: Iterator[Outcome]) -> None:
    click.echo(
        f"{'timeframe':<10} {'candles':>9} {'found':>8} {'per 1,000':>9} {'long':>7} {'short':>7}"
        f" {'neutral':>7} {'strength':>8}  latest"
    )
    for each in outcomes:
        number, directions = len(each.hits), each.directions
        strength = f"{sum(hit.strength for hit in each.hits) / number:.2f}" if number else ""
        latest = f"{each.hits[-1].symbol} {each.hits[-1].ts:%Y-%m-%d %H:%M}" if number else ""
        click.echo(
            f"{each.timeframe:<10} {each.candles:>9,} {number:>8,}"
            f" {1000 * number / max(1, each.candles):>9.1f} {directions['long']:>7,}"
            f" {directions['short']:>7,} {directions['neutral']:>7,} {strength:>8}  {latest}".rstrip()
        )


def _raise_first(file: Path, pattern: Pattern, failures: Remembering) -> None:
    if failures.first is None:
        return
    timeframe, error = failures.first
    where = str(file) if isinstance(pattern, SqlPattern) else where_in(file, error)
    gist = (str(error).splitlines() or [""])[0]
    raise TickstockError(
        f"{where}: {pattern.name} fails on {timeframe} candles: {type(error).__name__}: {gist}"
    )
