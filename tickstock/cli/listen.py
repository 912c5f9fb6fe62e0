"""`tickstock listen`."""

import logging
import threading
from collections.abc import Iterable, Sequence

import click
import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.cli import completion, options
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database
from tickstock.scan.consumers import Consumer
from tickstock.scan.handing import Hand
from tickstock.scan.listen import (
    Changes,
    Event,
    Wanted,
    from_redis,
    in_words,
    latest_change,
    telling_of_loss,
)
from tickstock.timeframes import TIMEFRAMES

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--json",
    "as_json",
    envvar="TICKSTOCK_LISTEN_JSON",
    show_envvar=True,
    is_flag=True,
    help="One JSON object per line.",
)
@click.option(
    "--since",
    envvar="TICKSTOCK_LISTEN_SINCE",
    show_envvar=True,
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="CHANGE",
    help="First print the events changed after this number (`change` in the JSON), then new ones. "
    "With --consumer: where a new consumer begins; a known one goes on where it was.",
)
@click.option(
    "--consumer",
    "name",
    envvar="TICKSTOCK_LISTEN_CONSUMER",
    show_envvar=True,
    metavar="NAME",
    help="Remember the position under this name, and go on from there at the next start.",
)
@click.option(
    "--exec",
    "command",
    envvar="TICKSTOCK_LISTEN_EXEC",
    show_envvar=True,
    metavar="PROGRAM",
    help="Run this program for each event in turn, with its JSON on standard input; needs --consumer.",
)
@click.option(
    "--tries",
    envvar="TICKSTOCK_LISTEN_TRIES",
    show_envvar=True,
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="After so many failed tries --exec logs the event as an error and goes on with the next.",
)
@click.option(
    "--exec-timeout",
    "patience",
    envvar="TICKSTOCK_LISTEN_EXEC_TIMEOUT",
    show_envvar=True,
    type=options.Seconds(min=0.01),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="End a program of --exec that takes longer; that counts as a failed try.",
)
@click.option(
    "--pattern",
    "patterns",
    envvar="TICKSTOCK_LISTEN_PATTERN",
    show_envvar=True,
    multiple=True,
    metavar="NAME",
    shell_complete=completion.patterns,
    help="Only this pattern. May be repeated.",
)
@click.option(
    "--symbol",
    "symbols",
    envvar="TICKSTOCK_LISTEN_SYMBOL",
    show_envvar=True,
    multiple=True,
    metavar="SYMBOL",
    help="Only this symbol. May be repeated.",
)
@click.option(
    "--timeframe",
    "timeframes",
    envvar="TICKSTOCK_LISTEN_TIMEFRAME",
    show_envvar=True,
    multiple=True,
    type=click.Choice(TIMEFRAMES),
    help="Only this timeframe. May be repeated.",
)
@options.database_url
@options.redis_url
@options.verbosity
def listen(
    as_json: bool,
    since: int | None,
    name: str | None,
    command: str | None,
    tries: int,
    patience: float,
    patterns: tuple[str, ...],
    symbols: tuple[str, ...],
    timeframes: tuple[str, ...],
    database_url: str | None,
    redis_url: str | None,
) -> None:
    """Print pattern events as they are found, until Ctrl-C: from Redis if set, else from PostgreSQL.

    With --since or --consumer, events come from the table events even if Redis is set, in the order of
    their changes, without gap or repetition. An event that is corrected or retracted comes again.

    \b
    Example: tickstock listen --json | jq .symbol
             tickstock listen --consumer alerts --exec './alert.sh' --pattern Hammer
    """
    if name is not None and not name.strip():
        raise click.UsageError("--consumer needs a name")
    if command is not None and not name:
        raise click.UsageError(
            "--exec needs --consumer NAME, so that no event is missed or handed over twice"
        )
    stop = threading.Event()
    wanted = Wanted(patterns, symbols, timeframes)
    hand = Hand(command, stop, tries=tries, patience=patience) if command is not None else None
    options.stop_on_signals(stop)
    if redis_url and since is None and name is None:
        _print(filter(wanted.holds, from_redis(redis_url, stop)), as_json)
        return
    with database(database_url) as source, connect(source.url, program="listen") as conn:
        require_schema(conn)
        _tell_of_unknown(conn, patterns)
        with telling_of_loss():
            latest = latest_change(conn)
            begin = latest if since is None else since
            consumer = Consumer(conn, name, begin) if name else None
            if consumer:
                begin = consumer.heard
            if (
                begin > latest
            ):  # as may be after a restore: events from here to there would be passed over
                log.warning(
                    "the latest change of an event is %d: nothing comes before one above %d",
                    *(latest, begin),
                )
            if hand and consumer:
                _hand_over(Changes(conn, begin, wanted, stop, most=20), consumer, hand, stop)
            else:
                _follow(Changes(conn, begin, wanted, stop), consumer, as_json)


def _tell_of_unknown(conn: Connection[TupleRow], patterns: Sequence[str]) -> None:
    """Who waits for a name that is mistyped hears nothing, and must not take that for quiet."""
    known = {name for (name,) in conn.execute("select pattern from patterns")}
    for name in patterns:
        if name not in known:
            alike = [each for each in known if each.lower() == name.lower()]
            hint = f"; did you mean {alike[0]}?" if alike else ""
            log.warning("no scanner has told of a pattern named %s so far%s", name, hint)


def _follow(changes: Changes, consumer: Consumer | None, as_json: bool) -> None:
    for batch in changes.batches():
        _print((event for _, event in batch if event), as_json)
        if consumer:
            consumer.save(batch[-1].change)


def _hand_over(changes: Changes, consumer: Consumer, hand: Hand, stop: threading.Event) -> None:
    """Saved event by event: what has been taken is not handed over again.

    The program holds our session open: should we be killed, nobody else hands over while it still runs.
    """
    for batch in changes.batches():
        for change, event in batch:
            if stop.is_set() or (event and not hand.give(event, consumer.fileno())):
                return
            if event:
                consumer.save(change)
        consumer.save(batch[-1].change)


def _print(events: Iterable[Event], as_json: bool) -> None:
    for event in events:
        click.echo(orjson.dumps(event) if as_json else in_words(event))
