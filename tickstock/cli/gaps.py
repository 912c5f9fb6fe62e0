"""`tickstock gaps`."""

from datetime import datetime
from typing import Any

import click
import orjson

from tickstock.cli import options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database

GAPS = "select symbol, starts, ends, minutes, reason, asked_at from feed_gaps order by ends desc, symbol"


@click.command()
@options.as_json("One JSON object a line.")
@options.database_url
@options.verbosity
def gaps(as_json: bool, database_url: str | None) -> None:
    """List minutes that the live feed missed and nothing has filled. Times are UTC.

    \b
    Example: tickstock gaps --json | jq .symbol
    """
    with database(database_url) as source, connect(source.url, program="gaps") as conn:
        require_schema(conn)
        rows = conn.execute(GAPS)
        names = [column.name for column in rows.description or ()]
        owed: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    if as_json:
        for gap in owed:
            click.echo(orjson.dumps(gap, option=orjson.OPT_UTC_Z))
        return
    for gap in owed:
        asked = (
            f"; asked for at {_moment(gap['asked_at'])}, and again when it can no longer change"
            if gap["asked_at"]
            else ""
        )
        symbol = "all symbols" if gap["symbol"] == "*" else gap["symbol"]
        click.echo(
            f"{symbol}: {_moment(gap['starts'])} to {_moment(gap['ends'])},"
            f" {counted(gap['minutes'], 'minute')}"
            f" ({gap['reason'] or 'at the beginning or end of a subscription'}{asked})"
        )
    if owed:
        click.echo(f"{counted(len(owed), 'gap')}; to fill: `tickstock backfill`", err=True)
    else:
        click.echo("nothing is owed", err=True)


def _moment(ts: datetime) -> str:
    return f"{ts:%Y-%m-%d %H:%M}"
