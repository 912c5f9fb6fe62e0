"""`tickstock simulate`."""

import threading
from datetime import UTC, datetime, timedelta

import click
import orjson

from tickstock.cli import completion, options
from tickstock.counted import counted
from tickstock.errors import TickstockError
from tickstock.simulator import FAULTS, Faults, RandomMarket, ReplayMarket, Simulator
from tickstock.simulator.market import Market, default_start

A_YEAR = timedelta(weeks=52)


def _rates(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """`drop=0.01` and the like."""
    rates = {}
    for value in values:
        fault, _equals, rate = value.partition("=")
        try:
            rates.update(Faults({fault: float(rate)}).rates)
        except ValueError:
            raise click.BadParameter(f"{value} is not of the form drop=0.01") from None
        except TickstockError as error:
            raise click.BadParameter(error.message) from None
    return rates


def _in_reach(_: click.Context, __: click.Parameter, start: datetime | None) -> datetime | None:
    """A day that can be reckoned with, in New York too."""
    if start and not 1970 <= start.year < 3000:
        raise click.BadParameter("give a day of the years 1970 to 2999")
    return start


@click.command()
@click.option(
    "--port",
    envvar="TICKSTOCK_SIMULATE_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    default=8765,
    metavar="PORT",
    show_default=True,
    help="Port on the loopback interface; 0 for any free one.",
)
@click.option(
    "--symbols",
    envvar="TICKSTOCK_SIMULATE_SYMBOLS",
    show_envvar=True,
    type=click.IntRange(1, 474_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many symbols the random market has.",
)
@click.option(
    "--seed",
    envvar="TICKSTOCK_SIMULATE_SEED",
    show_envvar=True,
    type=int,
    default=0,
    metavar="N",
    show_default=True,
    help="The same seed, the same market.",
)
@click.option(
    "--start",
    envvar="TICKSTOCK_SIMULATE_START",
    show_envvar=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    callback=_in_reach,
    metavar="UTC",
    help="When the random market begins (UTC). Default: 08:30 New York of the latest weekday that is "
    "over; with a --speed above 1, of one a year ago, so that it does not overtake today.",
)
@click.option(
    "--speed",
    envvar="TICKSTOCK_SIMULATE_SPEED",
    show_envvar=True,
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="How many times faster than real time.",
)
@click.option(
    "--replay",
    is_flag=True,
    help="Play the vendor's minute flat files (FILES) instead of a random market.",
)
@click.option(
    "--fault",
    "rates",
    envvar="TICKSTOCK_SIMULATE_FAULT",
    show_envvar=True,
    metavar="NAME=RATE",
    multiple=True,
    callback=_rates,
    help="Inject a fault with this probability, each time it can occur. May be repeated. "
    f"Faults: {', '.join(FAULTS)}.",
)
@click.option(
    "--max-connections",
    envvar="TICKSTOCK_SIMULATE_MAX_CONNECTIONS",
    show_envvar=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Cut off the newest connection when there are more than N. Default: no limit.",
)
@click.option(
    "--key",
    envvar="TICKSTOCK_SIMULATE_KEY",
    show_envvar=True,
    default="simulator",
    metavar="KEY",
    show_default=True,
    help="The API key that is accepted.",
)
@click.argument("files", nargs=-1, metavar="[FILES]...", shell_complete=completion.files)
@options.as_json("Two lines of JSON: the addresses, and at the end what was sent.")
@options.verbosity
def simulate(
    port: int,
    symbols: int,
    seed: int,
    start: datetime | None,
    speed: float,
    replay: bool,
    rates: dict[str, float],
    max_connections: int | None,
    key: str,
    files: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a simulated feed: a local server with the vendor's protocol, for when the market is closed.

    \b
    Example: tickstock simulate --symbols 500 --speed 60
             MASSIVE_API_KEY=simulator tickstock ingest --symbols '*' \\
               --feed-url ws://127.0.0.1:8765/stocks
    With faults: tickstock simulate --fault drop=0.01 --fault late=0.001 --fault rest_429=0.2
    """
    if replay != bool(files):
        raise click.UsageError("--replay takes the files to play: --replay minute_aggs_*.csv.gz")
    market: Market = (
        ReplayMarket(files)
        if files
        else RandomMarket(symbols, seed=seed, start=_start(start, speed))
    )
    stop = threading.Event()
    options.stop_on_signals(stop)
    with Simulator(
        market,
        port=port,
        keys=[key],
        speed=speed,
        max_connections=max_connections,
        faults=Faults(rates, seed=seed),
        seed=seed,
        closes=True,
    ) as simulator:
        _tell_addresses(simulator, key, as_json)
        while not stop.wait(0.2):
            if simulator.finished.is_set():
                simulator.settle()
                if simulator.error:
                    raise TickstockError(f"the market failed: {simulator.error}")
                if not as_json:
                    click.echo("the market has ended")
                break
        _tell_end(simulator, as_json)


def _tell_addresses(simulator: Simulator, key: str, as_json: bool) -> None:
    if as_json:
        told = {"url": simulator.url, "rest_url": simulator.rest_url, "key": key}
        click.echo(orjson.dumps(told))
        return
    click.echo(f"{simulator.url} (key: {key}); the market opens with the first subscriber")
    click.echo(f"{simulator.rest_url} is its REST API")


def _tell_end(simulator: Simulator, as_json: bool) -> None:
    faults = simulator.faults.counts
    if as_json:
        ended = simulator.finished.is_set()
        told = {"ended": ended, "bars_sent": len(simulator.sent), "faults": dict(faults)}
        click.echo(orjson.dumps(told))
        return
    click.echo(f"{counted(len(simulator.sent), 'bar')} sent")
    if faults:
        click.echo(f"faults: {', '.join(f'{name} {count:,}' for name, count in faults.items())}")


def _start(given: datetime | None, speed: float) -> datetime:
    if given:
        return given.replace(tzinfo=UTC)
    # Closed hours take no time: a fast market would soon be ahead of today, which ingest refuses.
    return default_start(datetime.now(UTC) - (A_YEAR if speed > 1 else timedelta()))
