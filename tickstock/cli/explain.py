"""`tickstock explain`."""

import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from inspect import cleandoc
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import click
import orjson

from tickstock.chart.terminal import chart
from tickstock.cli import options
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database
from tickstock.errors import TickstockError
from tickstock.patterns import discover
from tickstock.scan.explain import Candle, Explanation
from tickstock.scan.explain import explain as explain_event

ON_REDIS = {True: "yes", False: "not yet", None: "no: found before any scanner had a Redis"}


@click.command()
@click.argument("event_id", metavar="EVENT", type=int)
@click.option(
    "--after",
    type=click.IntRange(min=0, max=500),
    default=5,
    show_default=True,
    metavar="N",
    help="Also show N candles after it.",
)
@options.as_json("One JSON object; the lag is in seconds.")
@options.patterns_folder
@options.database_url
@options.verbosity
def explain(
    event_id: int, after: int, as_json: bool, folder: Path | None, database_url: str | None
) -> None:
    """Explain an event: why it was found, and what came after.

    Shows its pattern, numbers, candles and outcome, in UTC. EVENT is its id: `id` in the output of
    `tickstock listen --json`, and in the table events.

    \b
    Example: tickstock explain 1889
    """
    with database(database_url) as source, connect(source.url, program="explain") as conn:
        require_schema(conn)
        found = explain_event(conn, event_id, after=after)
    if found is None:
        raise TickstockError(f"there is no event {event_id}: see the column id of the table events")
    definition = _definition(found.event["pattern"], folder) or found.event["summary"]
    if as_json:
        told = asdict(found) | {"definition": definition}
        click.echo(orjson.dumps(told, default=timedelta.total_seconds, option=orjson.OPT_UTC_Z))
        return
    for line in _words(found, definition):
        click.echo(line)
    if found.candles:
        click.echo("\n" + _table(found.candles) + "\n")
        colors = sys.stdout.isatty()
        click.echo(chart(found.candles, width=min(100, get_terminal_size().columns), colors=colors))


def _definition(name: str, folder: Path | None) -> str | None:
    """The pattern's own description; None if this program does not know it."""
    found = (each.description for each in discover(folder) if each.name == name)
    return next(map(cleandoc, found), None)


def _words(found: Explanation, definition: str | None) -> list[str]:
    event = found.event
    head = (
        f"event {event['id']} (change {event['change']}): {event['pattern']} in {event['symbol']}, "
        f"{event['timeframe']} candle of {_moment(event['ts'])}, {event['direction']}"
    )
    remarks = [
        f"RETRACTED at {_moment(event['retracted_at'])}: its bars, or the pattern's settings, have changed"
        for _ in range(event["retracted_at"] is not None)
    ]
    if event["late"]:
        remarks.append("late: the next candle was over already when it was recorded")
    gone = all(each.place for each in found.candles)
    if gone:
        remarks.append("its candle is gone: the bars have been dropped (keep_bars), or deleted")
    rows = [
        ("price", f"{event['price']:.10g}"),
        ("strength", f"{event['strength']:.3g} of 1"),
        ("details", _numbers(event["details"]) or "none"),
        ("parameters", _parameters(event)),
        ("recorded", f"{_moment(event['detected_at'])}{_lag(event['lag'])}"),
        ("on Redis", ON_REDIS[event["published"]]),
        *(() if gone else _outcome(found.outcome, event["direction"])),
    ]
    lines = [head, *remarks, ""]
    lines += [f"  {line}".rstrip() for line in (definition or "(an unknown pattern)").splitlines()]
    return [*lines, "", *(f"{label:<14}{text}" for label, text in rows)]


def _outcome(outcome: dict[str, Any] | None, direction: str) -> list[tuple[str, str]]:
    if outcome is None:
        return []
    sign = " (above 0: it was right)" if direction != "neutral" else ""
    told = [
        f"{100 * value:+.2f} % after {number}"
        for number in (1, 5, 20)
        if (value := outcome[f"return_{number}"]) is not None
    ]
    if not told:
        return [("outcome", "no candle after it yet")]
    return [("outcome", f"{', '.join(told)} candle{'s' if len(told) > 1 else ''}{sign}")]


def _parameters(event: dict[str, Any]) -> str:
    """Those it was made with; defaults are told where they differ."""
    defaults = event["default_parameters"] or {}
    told = [
        f"{name} = {value:.6g}"
        + (f" (default {defaults[name]:.6g})" if defaults.get(name, value) != value else "")
        for name, value in event["parameters"].items()
    ]
    return ", ".join(told) or "none"


def _numbers(details: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} = {value:.10g}" if isinstance(value, int | float) else f"{name} = {value}"
        for name, value in details.items()
    )


def _lag(lag: timedelta | None) -> str:
    return "" if lag is None else f", {lag.total_seconds():.0f} s after its candle (feed's clock)"


def _moment(ts: datetime) -> str:
    return f"{ts:%Y-%m-%d %H:%M}"


def _table(candles: list[Candle]) -> str:
    lines = [
        f"{'':>5}  {'start':<16}  {'open':>10}  {'high':>10}  {'low':>10}  {'close':>10}  {'volume':>12}"
    ]
    decimals = max(
        _decimals(price)
        for each in candles
        for price in (each.open, each.high, each.low, each.close)
    )
    for each in candles:
        place = f"{each.place:+d}" if each.place else "0"
        prices = "  ".join(
            f"{price:>10,.{decimals}f}" for price in (each.open, each.high, each.low, each.close)
        )
        lines.append(f"{place:>5}  {_moment(each.ts)}  {prices}  {each.volume:>12,.15g}")
    return "\n".join(lines)


def _decimals(price: float) -> int:
    """That it takes to tell it from its neighbours; cents, at least."""
    return max(2, len(f"{price:.6f}".rstrip("0").partition(".")[2]))
