"""The dashboards and their provisioning as files: nothing here needs Grafana or a database."""

import json
import re
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units

from tests.grafana.dashboards import (
    DASHBOARDS,
    FILES,
    ROOT,
    All,
    ExpandError,
    Range,
    expand_macros,
    expand_variables,
    interval_of,
    queries,
)
from tests.grafana.schema import misfits

PROVISIONING = ROOT / "grafana/provisioning"
SOURCE = yaml.safe_load((PROVISIONING / "datasources/tickstock.yaml").read_text())
PROVIDERS = yaml.safe_load((PROVISIONING / "dashboards/tickstock.yaml").read_text())
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# What Grafana itself puts in, besides a dashboard's variables.
BUILT_IN = re.compile(r"__(?:data\.fields\.\w+|\w+)")
UNITLESS = {"none", "string"}

each = pytest.mark.parametrize("name", DASHBOARDS)

# The examples of the data source's own tests: 2018-04-12 18:00 and five minutes.
FIVE_MINUTES = Range(
    datetime(2018, 4, 12, 18, tzinfo=UTC), datetime(2018, 4, 12, 18, 5, tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (
            "WHERE $__timeFilter(time_column)",
            "WHERE time_column BETWEEN '2018-04-12T18:00:00Z' AND '2018-04-12T18:05:00Z'",
        ),
        ("select $__timeFrom()", "select '2018-04-12T18:00:00Z'"),
        ("select $__timeTo()", "select '2018-04-12T18:05:00Z'"),
        (
            "SELECT $__timeGroup(time_column,'5m') as time, value",
            "SELECT floor(extract(epoch from time_column)/300)*300 as time, value",
        ),
        (
            "SELECT $__timeGroup(time_column,'5m'), value",
            'SELECT floor(extract(epoch from time_column)/300)*300 AS "time", value',
        ),
        (
            "$__timeGroup(time_column , '5m')",
            "floor(extract(epoch from time_column)/300)*300",
        ),
        ("$__timeGroup(t, $__interval)", "floor(extract(epoch from t)/600)*600"),
        ("SELECT $__interval", "SELECT 10m"),
        ("SELECT $__interval_ms", "SELECT 600000"),
    ],
)
def test_macros_are_expanded_as_grafana_does(written: str, sent: str) -> None:
    assert expand_macros(written, FIVE_MINUTES, timedelta(minutes=10)) == sent


def test_a_fraction_of_a_second_is_written_as_go_writes_it() -> None:
    since = datetime(1960, 2, 1, 7, 0, 0, 500_000, tzinfo=UTC)
    assert expand_macros("$__timeFrom()", Range(since, since)) == "'1960-02-01T07:00:00.5Z'"


@pytest.mark.parametrize("sql", ["$__timeGroup(t, 'soon')", "$__nothing(t)"])
def test_what_grafana_does_not_know_is_refused(sql: str) -> None:
    with pytest.raises(ExpandError):
        expand_macros(sql, FIVE_MINUTES)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        # The example of Grafana's documentation: test'1 and test2.
        (["test'1", "test2"], "'test''1','test2'"),
        ("AAPL", "'AAPL'"),
        ("'; drop table events; --", "'''; drop table events; --'"),
        (All("''"), "''"),
    ],
)
def test_variables_are_literals(value: Any, sent: str) -> None:
    assert expand_variables("in (${servers:sqlstring})", {"servers": value}) == f"in ({sent})"


@pytest.mark.parametrize(
    "sql",
    [
        "$servers",
        "'$servers'",
        "${servers}",
        "${servers:raw}",
        "${others:sqlstring}",
        "[[servers]]",
    ],
)
def test_other_ways_to_write_a_variable_are_refused(sql: str) -> None:
    with pytest.raises(ExpandError):
        expand_variables(sql, {"servers": "x"})


@each
def test_the_schema_of_grafana_knows_all_of_it(name: str) -> None:
    assert list(misfits(DASHBOARDS[name])) == []


def test_what_the_schema_does_not_know_is_found() -> None:
    wrong = deepcopy(DASHBOARDS["market"])
    panel = next(panel for panel in wrong["panels"] if panel["type"] == "candlestick")
    panel["titel"] = panel.pop("title")
    panel["gridPos"]["w"] = "24"
    panel["options"]["mode"] = "candels"
    panel["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "lines"
    assert len(list(misfits(wrong))) == 4


def test_dashboards_are_apart() -> None:
    assert {path.stem for path in FILES} == {"market", "events", "operations"}
    assert [dashboard["uid"] for dashboard in DASHBOARDS.values()] == [
        f"tickstock-{name}" for name in DASHBOARDS
    ]
    for path in FILES:
        # As Grafana's editor writes it; a difference shows what has changed.
        text = json.dumps(DASHBOARDS[path.stem], indent=2, ensure_ascii=False) + "\n"
        assert path.read_text() == text


@each
def test_panels_are_told_apart_and_explained(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    for key in ("id", "title"):
        assert max(Counter(panel[key] for panel in panels).values()) == 1
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"]


@each
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    taken = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in places
    ]
    for one, other in combinations(taken, 2):
        assert not one & other
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert sum(map(len, taken)) == 24 * max(p["y"] + p["h"] for p in places)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


@each
def test_every_variable_that_is_used_is_defined_and_the_other_way_round(name: str) -> None:
    variables = [variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]]
    assert len(set(variables)) == len(variables)
    rest = {key: value for key, value in DASHBOARDS[name].items() if key != "templating"}
    found = set(re.findall(r"\$\{?([\w.]+)", " ".join(strings(rest))))
    assert {each for each in found if not BUILT_IN.fullmatch(each)} == set(variables)


def data_sources(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [found for inner in value for found in data_sources(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["datasource"]] if "datasource" in value else []
    return own + [found for inner in value.values() for found in data_sources(inner)]


@each
def test_the_data_source_is_the_provisioned_one(name: str) -> None:
    [provisioned] = SOURCE["datasources"]
    used = data_sources(DASHBOARDS[name])
    # A variable's query is a string; a panel and an annotation have one, and their queries again.
    asked = [query.kind for query in queries(name)]
    assert len(used) == 2 * len(asked) - asked.count("variable")
    for source in used:
        assert source == {"type": provisioned["type"], "uid": provisioned["uid"]}


@each
def test_units_are_grafana_s(name: str) -> None:
    known = {value for key, value in vars(units).items() if not key.startswith("_")} | UNITLESS
    for panel in DASHBOARDS[name]["panels"]:
        defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
        properties = [each for override in overrides for each in override["properties"]]
        used = {each["value"] for each in properties if each["id"] == "unit"} | {defaults["unit"]}
        assert used <= known, panel["title"]


@each
def test_what_is_overridden_is_a_column(name: str) -> None:
    """The columns themselves are checked where the queries run."""
    for panel in DASHBOARDS[name]["panels"]:
        sql = panel["targets"][0]["rawSql"]
        for override in panel["fieldConfig"]["overrides"]:
            column = override["matcher"]["options"]
            # Of time series they are values of the column metric.
            assert "as metric" in sql or re.search(rf"\b{column}\b", sql), column


@each
def test_links_lead_to_a_dashboard(name: str) -> None:
    targets = [text for text in strings(DASHBOARDS[name]) if text.startswith("/d/")]
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert targets
    for target in targets:
        path, _, query = target.partition("?")
        assert path.removeprefix("/d/") in uids
        assert "from=" in query
        assert "to=" in query


def test_ranges_of_panels_can_be_read() -> None:
    for name in DASHBOARDS:
        for query in queries(name):
            assert query.time_from is None or query.time_from >= interval_of("1d")


def test_the_data_source_only_reads_and_is_that_of_compose() -> None:
    [source] = SOURCE["datasources"]
    database = SERVICES["db"]["environment"]
    assert source["url"] == "db:5432"
    assert source["jsonData"]["database"] == database["POSTGRES_DB"]
    assert SERVICES["grant"]["command"] == ["db", "grant", "reader", source["user"]]
    # Without time_bucket(), which plain PostgreSQL does not have.
    assert source["jsonData"]["timescaledb"] is False
    # The password that Grafana is given is the one that the role gets.
    variable = source["secureJsonData"]["password"].removeprefix("$")
    given = SERVICES["grafana"]["environment"][variable]
    assert given == SERVICES["grant"]["environment"]["TICKSTOCK_ROLE_PASSWORD"]
    assert SOURCE["apiVersion"] == PROVIDERS["apiVersion"] == 1


def test_the_dashboards_are_where_grafana_looks_for_them() -> None:
    volumes = [volume.split(":") for volume in SERVICES["grafana"]["volumes"]]
    mounted = {source: target for source, target, *_ in volumes}
    [provider] = PROVIDERS["providers"]
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == provider["options"]["path"] + "/market.json"
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
