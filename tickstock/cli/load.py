"""`tickstock load`."""

import click
import orjson

from tickstock.cli import completion, options
from tickstock.counted import counted
from tickstock.db.connection import connect, require_schema
from tickstock.db.source import database
from tickstock.ingest.load import load_files


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completion.files
)
@options.as_json("One JSON object a line, one for each file.")
@options.database_url
@options.verbosity
def load(files: tuple[str, ...], as_json: bool, database_url: str | None) -> None:
    """Load the vendor's minute flat files (.csv, .csv.gz, or - for standard input).

    Loading a file again changes nothing. Loaded history is not scanned for patterns: use
    `tickstock scan --from 2025-11-24`.

    \b
    Example: tickstock load 2025-11-*.csv.gz
    """
    with database(database_url) as source, connect(source.url, program="load") as conn:
        require_schema(conn)
        for file, counts in load_files(conn, source.url, files):
            if as_json:
                click.echo(orjson.dumps({"file": file, **counts._asdict()}))
                continue
            click.echo(
                f"{file}: {counted(counts.received, 'bar')} = {counts.inserted:,} new"
                f" + {counts.replaced:,} replaced + {counts.unchanged:,} unchanged"
                f" + {counts.refused:,} refused"
            )
            if counts.refused:
                click.echo(
                    "  why: select reason, payload from refused_bars order by id desc", err=True
                )
