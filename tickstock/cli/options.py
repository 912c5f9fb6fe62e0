"""Options that commands share, each with its environment twin."""

import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import click

from tickstock.feed import rest

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_FEED_URL = "wss://socket.massive.com/stocks"

database_url = click.option(
    "--database-url",
    envvar="TICKSTOCK_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="PostgreSQL to use, such as postgresql://user@host/dbname. Without it (and without libpq's "
    "PG variables) tickstock starts one of its own.",
)
redis_url = click.option(
    "--redis-url",
    envvar="TICKSTOCK_REDIS_URL",
    show_envvar=True,
    metavar="URL",
    help="Redis to publish on, such as redis://host:6379/0. Without it, events go by NOTIFY alone.",
)
feed_url = click.option(
    "--feed-url",
    envvar="TICKSTOCK_FEED_URL",
    show_envvar=True,
    default=DEFAULT_FEED_URL,
    show_default=True,
    metavar="URL",
    help="WebSocket of the feed.",
)
rest_url = click.option(
    "--rest-url",
    envvar="TICKSTOCK_REST_URL",
    show_envvar=True,
    show_default=f"{rest.DEFAULT_URL} for the vendor's feeds",
    metavar="URL",
    help="REST API of the feed: what the stream left out is filled from there.",
)
calls_per_minute = click.option(
    "--calls-per-minute",
    envvar="TICKSTOCK_CALLS_PER_MINUTE",
    show_envvar=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="How many calls of REST the plan allows (the free one: 5); no limit unless given.",
)
api_key = click.option(
    "--api-key",
    envvar=["MASSIVE_API_KEY", "POLYGON_API_KEY"],
    show_envvar=True,
    metavar="KEY",
    help="Key of the feed. Better set in the environment than here, where others can see it.",
)


def verbosity(command: Command) -> Command:
    """Add --verbose and --quiet, which set up logging on standard error."""

    def set_up(context: click.Context, _: click.Parameter, level: int | None) -> None:
        if not context.resilient_parsing:
            set_up_logging(level or logging.INFO)

    for flag, level, text in (
        ("--quiet", logging.WARNING, "Say only what went wrong."),
        ("--verbose", logging.DEBUG, "Say more."),
    ):
        command = click.option(
            flag,
            "log_level",
            flag_value=level,
            type=int,
            expose_value=False,
            callback=set_up,
            help=text,
        )(command)
    return command


def set_up_logging(level: int) -> None:
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )


def stop_on_signals(stop: threading.Event) -> None:
    """Ctrl-C and SIGTERM set `stop`: what runs ends in order. A second Ctrl-C ends at once."""

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
