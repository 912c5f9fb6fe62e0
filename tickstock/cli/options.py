"""Options that commands share, each with its environment twin."""

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from tickstock import logs
from tickstock.feed import rest

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_FEED_URL = "wss://socket.massive.com/stocks"
LEVELS = {"quiet": logging.WARNING, "verbose": logging.DEBUG}
LEVEL = "tickstock.log_level"
"""Where a context keeps the level of the log that is asked for, and the source of that."""


class Secret(click.Option):
    """An option whose value is a secret, or holds some: no log shows them, no error repeats them."""

    def __init__(
        self, *arguments: Any, secrets_in: Callable[[str], Iterable[str]], **others: Any
    ) -> None:
        super().__init__(*arguments, callback=self._hide, **others)
        self.secrets_in = secrets_in

    def _hide(self, _: click.Context, __: click.Parameter, value: str | None) -> str | None:
        for secret in self.secrets_in(value or ""):
            logs.hide(secret)
        return value


class Seconds(click.FloatRange):
    """Seconds that a program can wait: up to a day, since no clock waits for ever or for nan."""

    def __init__(self, min: float) -> None:  # noqa: A002 - as click calls it
        super().__init__(min, max=86_400)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):  # within every range, as comparing goes
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def as_json(text: str = "One JSON object.") -> Callable[[Command], Command]:
    """--json, for programs that read what the command tells."""
    return click.option("--json", "as_json", is_flag=True, help=text)


database_url = click.option(
    "--database-url",
    cls=Secret,
    secrets_in=logs.passwords_in,
    envvar="TICKSTOCK_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="PostgreSQL to use, such as postgresql://user@host/dbname. Without it (and without libpq's "
    "PG variables) tickstock starts a server of its own.",
)
redis_url = click.option(
    "--redis-url",
    cls=Secret,
    secrets_in=logs.passwords_in,
    envvar="TICKSTOCK_REDIS_URL",
    show_envvar=True,
    metavar="URL",
    help="Redis to publish on, such as redis://host:6379/0. Without it, events go out by NOTIFY only.",
)
patterns_folder = click.option(
    "--patterns",
    "folder",
    envvar="TICKSTOCK_PATTERNS",
    show_envvar=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder with your own patterns: files *.py and *.sql.",
)
pattern_timeout = click.option(
    "--pattern-timeout",
    envvar="TICKSTOCK_PATTERN_TIMEOUT",
    show_envvar=True,
    type=Seconds(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that a pattern in SQL has for the candles of one timeframe. If it takes longer, it is "
    "stopped, reported, and left out for sixty times as long; one in Python is named in a warning.",
)
feed_url = click.option(
    "--feed-url",
    cls=Secret,
    secrets_in=logs.passwords_in,
    envvar="TICKSTOCK_FEED_URL",
    show_envvar=True,
    default=DEFAULT_FEED_URL,
    show_default=True,
    metavar="URL",
    help="WebSocket address of the feed.",
)
rest_url = click.option(
    "--rest-url",
    cls=Secret,
    secrets_in=logs.passwords_in,
    envvar="TICKSTOCK_REST_URL",
    show_envvar=True,
    show_default=f"{rest.DEFAULT_URL} for the vendor's feeds",
    metavar="URL",
    help="REST API of the feed; gaps of the live stream are filled from it.",
)
calls_per_minute = click.option(
    "--calls-per-minute",
    envvar="TICKSTOCK_CALLS_PER_MINUTE",
    show_envvar=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="REST calls per minute that the plan allows (the free plan: 5). Default: no limit.",
)
api_key = click.option(
    "--api-key",
    cls=Secret,
    secrets_in=lambda key: [key],
    envvar=["MASSIVE_API_KEY", "POLYGON_API_KEY"],
    show_envvar=True,
    metavar="KEY",
    help="API key of the feed. Better set it in the environment: others can see a command line.",
)


def verbosity(command: Command) -> Command:
    """Add --verbose, --quiet and --log-format, which set up logging on standard error."""

    def set_level(context: click.Context, option: click.Parameter, wanted: bool) -> None:
        source = context.get_parameter_source(str(option.name)) or ParameterSource.DEFAULT
        stronger, _ = context.meta.get(LEVEL, (source, None))
        if wanted and source <= stronger and not context.resilient_parsing:
            context.meta[LEVEL] = source, LEVELS[str(option.name)]
            logging.getLogger().setLevel(LEVELS[str(option.name)])

    def set_format(context: click.Context, _: click.Parameter, log_format: str) -> None:
        if not context.resilient_parsing:
            _, level = context.meta.get(LEVEL, (None, logging.INFO))
            logging.getLogger().setLevel(level)
            _set_up_logging(log_format)

    command = click.option(
        "--log-format",
        envvar="TICKSTOCK_LOG_FORMAT",
        show_envvar=True,
        type=click.Choice(logs.FORMATS),
        default="text",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=set_format,
        help="Format of the log on standard error: text, or one JSON object per line.",
    )(command)
    for flag, variable, text in (
        ("--quiet", "TICKSTOCK_QUIET", "Log warnings and errors only."),
        ("--verbose", "TICKSTOCK_VERBOSE", "Log more detail."),
    ):
        command = click.option(
            flag,
            envvar=variable,
            show_envvar=True,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=set_level,
            help=text,
        )(command)
    return command


@click.command()
@patterns_folder
@pattern_timeout
@feed_url
@rest_url
@calls_per_minute
@api_key
@database_url
@redis_url
@verbosity
def shared() -> None:
    """Never run: what it has are the options that commands share."""


def options_of(command: click.Command) -> list[click.Option]:
    """Its options, without its arguments."""
    return [each for each in command.params if isinstance(each, click.Option)]


SHARED = options_of(shared)


def set_up_logging(level: int) -> None:
    """For commands without these options: lines for people."""
    logging.getLogger().setLevel(level)
    _set_up_logging("text")


def _set_up_logging(log_format: str) -> None:
    logs.hide(os.environ.get("PGPASSWORD"))
    logs.set_up(log_format)


def stop_on_signals(stop: threading.Event) -> None:
    """Ctrl-C and SIGTERM set `stop`: what runs ends in order. A second Ctrl-C ends at once."""

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
