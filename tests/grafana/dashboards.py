"""The dashboards' queries, and what Grafana makes of them before PostgreSQL sees them.

Variables are put in by Grafana's front end, macros by its PostgreSQL data source; both are done here
as its documentation and its own tests tell (tests/grafana/test_dashboards.py has those examples).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "grafana/dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}

UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(days=7),
}


class ExpandError(ValueError):
    """Grafana would show an error in place of the panel."""


class Query(NamedTuple):
    dashboard: str
    title: str
    kind: str
    """The panel's type, or `variable`, or `annotation`."""
    format: str
    """`table` or `time_series`."""
    sql: str
    time_from: timedelta | None = None
    """The panel's own range, up to the end of the dashboard's."""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title} ({self.kind})"


class Range(NamedTuple):
    """The range of time that a viewer looks at, both ends included."""

    since: datetime
    until: datetime


class All(NamedTuple):
    """A variable's choice "All": its allValue, which Grafana puts in as it is."""

    raw: str


Values = Mapping[str, str | Sequence[str] | All]


def queries(name: str) -> Iterator[Query]:
    """Everything that a dashboard asks the database."""
    dashboard = DASHBOARDS[name]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield Query(name, variable["name"], "variable", "table", variable["query"])
    for annotation in dashboard["annotations"]["list"]:
        target = annotation["target"]
        yield Query(name, annotation["name"], "annotation", target["format"], target["rawSql"])
    for panel in dashboard["panels"]:
        own = interval_of(panel["timeFrom"]) if "timeFrom" in panel else None
        for target in panel["targets"]:
            yield Query(
                name, panel["title"], panel["type"], target["format"], target["rawSql"], own
            )


def expand(query: Query, values: Values, range_: Range, interval: timedelta) -> str:
    """The statement that PostgreSQL gets. interval: between two points of a graph."""
    if query.time_from:
        range_ = Range(range_.until - query.time_from, range_.until)
    return expand_macros(expand_variables(query.sql, values), range_, interval)


def expand_variables(sql: str, values: Values) -> str:
    """${name:sqlstring} as a literal, or several with commas between.

    Raises ExpandError for every other way to write a variable: those leave quoting to chance.
    """

    def formatted(match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if form != "sqlstring" or name not in values:
            raise ExpandError(f"not a variable in the format sqlstring: {match[0]}")
        value = values[name]
        if isinstance(value, All):
            return value.raw
        several = [value] if isinstance(value, str) else value
        return ",".join("'" + each.replace("'", "''") + "'" for each in several)

    if bare := re.search(r"\$(?!__)\w+|\[\[", sql):
        raise ExpandError(f"not a variable in the format sqlstring: {bare[0]}")
    return re.sub(r"\$\{(\w+)(?::(\w+))?[^}]*\}", formatted, sql)


def expand_macros(sql: str, range_: Range, interval: timedelta = UNITS["m"]) -> str:
    """As Grafana's PostgreSQL data source does it with the setting `timescaledb` off."""
    sql = sql.replace("$__interval_ms", str(interval // UNITS["ms"]))
    sql = sql.replace("$__interval", _interval_text(interval))
    since, until = (f"'{_rfc3339(moment)}'" for moment in range_)

    def macro(match: re.Match[str]) -> str:
        arguments = [argument.strip(" ") for argument in match[2].split(",")]
        if match[1] == "__timeFilter":
            return f"{arguments[0]} BETWEEN {since} AND {until}"
        if match[1] == "__timeFrom":
            return since
        if match[1] == "__timeTo":
            return until
        if match[1] == "__timeGroup" and len(arguments) == 2:
            seconds = f"{interval_of(arguments[1].strip(chr(39))).total_seconds():g}"
            # Grafana adds AS "time" where a comma follows, which our queries do not rely on.
            alias = ' AS "time"' if sql[match.end() : match.end() + 1] == "," else ""
            return f"floor(extract(epoch from {arguments[0]})/{seconds})*{seconds}{alias}"
        raise ExpandError(f"not a macro that we use: {match[0]}")

    return re.sub(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)", macro, sql)


def interval_of(text: str) -> timedelta:
    """Of Grafana's notation, such as 5m or 30d. Raises ExpandError for others."""
    if not (found := re.fullmatch(r"(\d+)(ms|[smhdw])", text)):
        raise ExpandError(f"not an interval: {text}")
    return int(found[1]) * UNITS[found[2]]


def _interval_text(interval: timedelta) -> str:
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if interval >= UNITS[unit])
    return f"{interval // UNITS[unit]}{unit}"


def _rfc3339(moment: datetime) -> str:
    """As Go's RFC3339Nano: UTC, the fraction without zeros at its end."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".") + "Z"
