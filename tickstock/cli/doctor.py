"""`tickstock doctor`."""

import logging
import sys
from itertools import chain

import click
import orjson

from tickstock import doctor as checks
from tickstock.cli import options
from tickstock.cli.settings import check_all, file_of
from tickstock.errors import SettingsError
from tickstock.feed import rest


@click.command()
@options.as_json()
@options.feed_url
@options.rest_url
@options.api_key
@options.database_url
@options.redis_url
@options.verbosity
def doctor(
    as_json: bool,
    feed_url: str,
    rest_url: str | None,
    api_key: str | None,
    database_url: str | None,
    redis_url: str | None,
) -> None:
    """Check everything that ingest needs, and say what to do. Ends with code 1 if a check fails.

    It checks settings, key, feed, REST, database, schema, privileges, policies, clocks, Redis and disk.
    It changes nothing, and connects to the feed only if no ingest is connected.

    \b
    Example: tickstock doctor --json | jq '.checks[] | select(.level == "FAIL")'
    """
    logging.getLogger().setLevel(max(logging.getLogger().level, logging.WARNING))
    settings = checks.Settings(
        feed_url=feed_url,
        rest_url=rest_url or rest.url_beside(feed_url),
        api_key=api_key,
        database_url=database_url,
        redis_url=redis_url,
    )
    failed = False
    findings = []
    for finding in chain([_settings_file()], checks.Doctor(settings).findings()):
        failed |= finding.level is checks.Level.FAIL
        findings.append(finding._asdict())
        if not as_json:
            _tell(finding)
    if as_json:
        click.echo(orjson.dumps({"ok": not failed, "checks": findings}))
    sys.exit(1 if failed else 0)


def _settings_file() -> checks.Finding:
    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    file = file_of(root.params["settings"])
    try:
        if file:
            check_all(root.command, file)
    except SettingsError as error:
        return checks.Finding("settings file", checks.Level.FAIL, error.message)
    return checks.Finding("settings file", checks.Level.OK, str(file) if file else "none")


def _tell(finding: checks.Finding) -> None:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    click.echo(f"{finding.level:<4}  {finding.check}: {finding.found}{remedy}")
