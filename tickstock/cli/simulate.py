"""`tickstock simulate`."""

import threading
from datetime import UTC, datetime, timedelta

import click

from tickstock.cli import options
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


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port on the loopback interface; 0 for any free one.",
)
@click.option(
    "--symbols",
    type=click.IntRange(1, 474_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many symbols the random market has.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed, the same market."
)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    metavar="UTC",
    help="When the random market begins (UTC); else at 08:30 New York of the latest weekday that is "
    "over, or of one a year ago at a --speed above 1, which would overtake the calendar.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="How many times faster than real time.",
)
@click.option("--replay", is_flag=True, help="Play the vendor's minute flat files given as FILES.")
@click.option(
    "--fault",
    "rates",
    metavar="NAME=RATE",
    multiple=True,
    callback=_rates,
    help="Let something go wrong with this probability, each time it may. May be given again. "
    f"Faults: {', '.join(FAULTS)}.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cut off the newest connection when there are more than N; else there may be any number.",
)
@click.option("--key", default="simulator", show_default=True, help="The API key that is accepted.")
@click.argument("files", nargs=-1, metavar="[FILES]...")
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
) -> None:
    """Be the feed: a local server that speaks the vendor's protocol, for when the market is closed.

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
        click.echo(f"{simulator.url} (key: {key}); the market opens with the first subscriber")
        click.echo(f"{simulator.rest_url} is its REST API")
        while not stop.wait(0.2):
            if simulator.finished.is_set():
                simulator.settle()
                if simulator.error:
                    raise TickstockError(f"the market failed: {simulator.error}")
                click.echo("the market has ended")
                break
        click.echo(f"{len(simulator.sent):,} bars were sent")
        struck = ", ".join(f"{name} {count:,}" for name, count in simulator.faults.counts.items())
        if struck:
            click.echo(f"faults: {struck}")


def _start(given: datetime | None, speed: float) -> datetime:
    if given:
        return given.replace(tzinfo=UTC)
    # Closed hours take no time: a fast market would soon be ahead of today, which ingest refuses.
    return default_start(datetime.now(UTC) - (A_YEAR if speed > 1 else timedelta()))
