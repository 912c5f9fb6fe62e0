"""Every query of the dashboards, as the reader sends it through Grafana, on every engine."""

import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.e2e.program import run
from tests.grafana.dashboards import DASHBOARDS, All, Query, Range, Values, expand, queries
from tickstock.db.connection import connect, fetch_value

QUERIES = [query for name in DASHBOARDS for query in queries(name)]
NEW_YORK = ZoneInfo("America/New_York")
# Three symbols on the week of Thanksgiving 2025, whose Friday is a half day, pre-market to after-hours.
BARS = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, ts, p, p + 0.5, p - 0.4, p + 0.1, 100 + extract(minute from ts)
from (values ('AAPL', 270), ('TSLA', 400), ('O''NE', 660)) s (symbol, price),
  unnest('{2025-11-24, 2025-11-25, 2025-11-26, 2025-11-28}'::date[]) day,
  generate_series(timestamp '2000-01-01 09:00', '2000-01-01 13:29', '1 minute') minute,
  lateral (select (day + minute::time) at time zone 'America/New_York' as ts,
                  price + round(5 * sin(extract(epoch from day + minute::time) / 3000)::numeric, 2) as p) b
where extract(minute from minute) <> 11
"""
# Some candles are live, as they are in the hours of trading.
CORRECTED = """
update ohlcv_1min set close = close + 0.01 where ts >= '2025-11-28 17:10+00' and symbol <> 'O''NE'
"""
# Of these neither has what the other has: a candle, a mark.
OLD = "insert into ohlcv_1min values ('OLD', '2025-11-24 15:00+00', 1, 1, 1, 1, 1)"
NEW = "insert into ohlcv_1min values ('NEW', '2025-11-28 18:20+00', 1, 1, 1, 1, 1)"
EVENTS = """
insert into events
  (pattern, symbol, timeframe, ts, direction, price, strength, lag, late, retracted_at)
select p.pattern, c.symbol, '5min', c.ts, p.direction, c.close, 0.5,
  make_interval(secs => c.n % 7), c.n % 10 = 0, case when c.n % 7 = 3 then now() end
from (
  select *, row_number() over (order by ts, symbol)::integer as n
  from ohlcv_5min where complete and symbol <> 'OLD') c
join (values ('Doji', 'neutral', 2), ('Day1Breakout', 'long', 5), ('GapDown', 'short', 11))
  p (pattern, direction, every) on c.n % p.every = 0
"""
PATTERNS = """
insert into patterns (pattern, kind, summary, default_timeframes, default_parameters, candles)
select p, 'python', 'A pattern.', '{5min}', '{}', 1 from unnest('{Doji, Day1Breakout, GapDown}'::text[]) p
"""
# Of all symbols, lost on Tuesday from 10:20 to 11:40 New York, besides a quarter of an hour at both ends.
# Two more by name, lost on Monday before that.
STRETCHES = """
insert into feed_stretches (feed, channel, symbols, starts, latest, bars, closed_at, reason, intended) values
  ('wss://feed', 'AM', '{AAPL, TSLA}', '2025-11-24 11:00+00', '2025-11-24 12:00+00', 9, now(), 'lost', false),
  ('wss://feed', 'AM', null, '2025-11-24 14:00+00', '2025-11-25 15:20+00', 9, now(), 'lost', false),
  ('wss://feed', 'AM', null, '2025-11-25 16:40+00', '2025-11-28 18:29+00', 9, now(), 'stopped', true)
"""
COMPLETE = """
insert into minutes_complete (ts, stretch, bars, completed_at)
select ts, 3, count(*), ts + interval '63 seconds' from ohlcv_1min where ts >= '2025-11-26' group by ts
"""
REFUSED = (
    "insert into refused_bars (source, reason, payload) values ('feed', 'low above open', '{}')"
)
CLOCK = datetime(2025, 11, 28, 18, 30, tzinfo=UTC)
WEEK = Range(datetime(2025, 11, 24, 5, tzinfo=UTC), CLOCK)
NOTHING = Range(datetime(2020, 1, 4, tzinfo=UTC), datetime(2020, 1, 5, tzinfo=UTC))
CHOICES: Values = {
    "symbol": "AAPL",
    "timeframe": "5min",
    "sessions": "all",
    "pattern": ["Doji", "Day1Breakout", "GapDown"],
}
EVERYTHING: Values = {**CHOICES, "symbol": All("''"), "timeframe": All("''"), "pattern": All("''")}
PASSWORD = "reader's password"  # noqa: S105 - of a role that is gone after the test

NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
# What the data source can tell apart; anything else comes as text, or not at all.
KNOWN = NUMBERS | {"bool", "timestamptz", "date", "text", "jsonb"}


class Answer(NamedTuple):
    columns: dict[str, str]
    """Name and type, in their order."""
    rows: list[TupleRow]

    def column(self, name: str) -> list[Any]:
        place = list(self.columns).index(name)
        return [row[place] for row in self.rows]


class Viewer:
    """Somebody before Grafana."""

    def __init__(self, conn: Connection[TupleRow], owner: Connection[TupleRow]) -> None:
        self.conn, self.owner = conn, owner

    def ask(self, query: Query, values: Values, range_: Range = WEEK) -> Answer:
        """By the simple protocol, as Grafana does."""
        statement = expand(query, values, range_, timedelta(minutes=5))
        cursor = psycopg.ClientCursor(self.conn).execute(statement.encode())
        assert cursor.description is not None
        types = psycopg.adapters.types
        columns = {c.name: getattr(types.get(c.type_code), "name", "?") for c in cursor.description}
        assert len(columns) == len(cursor.description), "two columns of one name"
        return Answer(columns, cursor.fetchall())


def find(dashboard: str, title: str) -> Query:
    [query] = [q for q in QUERIES if (q.dashboard, q.title) == (dashboard, title)]
    return query


def choices(query: Query) -> Values:
    return EVERYTHING if query.dashboard == "events" else CHOICES


@pytest.fixture(scope="module")
def viewer(engine: Engine) -> Iterator[Viewer]:
    url = engine.clone()
    try:
        with connect(url, program="test") as owner:
            owner.execute("set tickstock.scan_queue = off")
            owner.execute(BARS)
            owner.execute(OLD)
            owner.execute("call ohlcv_refresh()")
            owner.execute(CORRECTED)
            for statement in (EVENTS, PATTERNS, STRETCHES, COMPLETE, REFUSED, NEW):
                owner.execute(statement)
            owner.execute("vacuum analyze")
            with reader(url) as conn:
                yield Viewer(conn, owner)
    finally:
        engine.drop(url)


@contextmanager
def reader(url: str) -> Iterator[Connection[TupleRow]]:
    """A session of a role as docker-compose.yml makes it for Grafana."""
    name = "grafana_" + str(conninfo_to_dict(url)["dbname"])
    done = run(
        "db", "grant", "reader", name,
        TICKSTOCK_DATABASE_URL=url, TICKSTOCK_ROLE_PASSWORD=PASSWORD,
    )  # fmt: skip
    assert done.returncode == 0, done
    try:
        with psycopg.connect(
            make_conninfo(url, user=name, password=PASSWORD), autocommit=True
        ) as conn:
            yield conn
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            for statement in ("drop owned by {}", "drop role {}"):
                admin.execute(sql.SQL(statement).format(sql.Identifier(name)))


def test_every_query_finds_something(viewer: Viewer) -> None:
    for query in QUERIES:
        answer = viewer.ask(query, choices(query))
        assert set(answer.columns.values()) <= KNOWN, query
        assert bool(answer.rows) == (query.title != "Consumers"), query


def test_every_query_bears_a_range_without_anything(viewer: Viewer) -> None:
    for query in QUERIES:
        viewer.ask(query, choices(query), NOTHING)


def test_columns_are_those_that_the_panel_needs(viewer: Viewer) -> None:
    for query in QUERIES:
        answer = viewer.ask(query, choices(query))
        names, types = list(answer.columns), answer.columns
        if "time" in types:
            assert types["time"] in NUMBERS | {"timestamptz"}, query
        if query.format == "time_series":
            assert names[0] == "time", query
            assert answer.column("time") == sorted(answer.column("time")), query
            values = set(names) - {"time", "metric"}
            assert {types[name] for name in values} <= NUMBERS, query
            assert types.get("metric", "text") == "text", query
        elif query.kind == "variable":
            assert list(types.values()) == ["text"], query
        elif query.kind == "annotation":
            assert types == {
                "time": "timestamptz", "timeend": "timestamptz", "text": "text", "tags": "text"
            }, query  # fmt: skip


def test_options_overrides_and_links_name_columns(viewer: Viewer) -> None:
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            query = find(name, panel["title"])
            answer = viewer.ask(query, choices(query))
            columns = set(answer.columns)
            if "metric" in columns:
                columns |= set(answer.column("metric"))
            for override in panel["fieldConfig"]["overrides"]:
                assert override["matcher"]["options"] in columns, query
            options = panel["options"]
            assert set(options.get("fields", {}).values()) <= columns, query
            assert {options["xField"]} <= columns if "xField" in options else True, query
            for field in re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)):
                # As text, for a number would be shown with a unit.
                assert answer.columns[field] == "text", query


def candles(viewer: Viewer, symbol: str, minutes: int, *, regular: bool = False) -> list[TupleRow]:
    """Time, prices and volume, counted by hand from the bars."""
    bars = viewer.owner.execute(
        "select ts, open, high, low, close, volume from ohlcv_1min where symbol = %s order by ts",
        (symbol,),
    ).fetchall()

    def opened(ts: datetime) -> bool:
        close = "13:00" if ts.day == 28 else "16:00"
        return "09:30" <= f"{ts.astimezone(NEW_YORK):%H:%M}" < close

    width = timedelta(minutes=minutes)
    day = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)  # a 09:30, and on every clock's boundary
    found = []
    for _, group in groupby(
        (bar for bar in bars if not regular or opened(bar[0])), lambda bar: (bar[0] - day) // width
    ):
        part = list(group)
        found.append(
            (
                day + (part[0][0] - day) // width * width,
                part[0][1],
                max(bar[2] for bar in part),
                min(bar[3] for bar in part),
                part[-1][4],
                sum((bar[5] for bar in part), Decimal(0)),
            )
        )
    return found


@pytest.mark.parametrize(
    ("timeframe", "sessions", "minutes"),
    [("1min", "all", 1), ("5min", "all", 5), ("10 minutes", "all", 10), ("30min", "regular", 30)],
)
def test_candles_are_those_of_the_bars(
    viewer: Viewer, timeframe: str, sessions: str, minutes: int
) -> None:
    values: Values = {**CHOICES, "timeframe": timeframe, "sessions": sessions}
    expected = candles(viewer, "AAPL", minutes, regular=sessions == "regular")
    shown = viewer.ask(find("market", "$symbol $timeframe"), values)
    assert list(shown.columns) == ["time", "open", "high", "low", "close", "volume"]
    assert shown.rows == expected[-2000:]
    last = expected[-200:]
    price = viewer.ask(find("market", "Without closed hours: price"), values)
    times = [f"{ts.astimezone(NEW_YORK):%m-%d %H:%M}" for ts, *_ in last]
    assert price.rows == [
        (n, time, *prices)
        for n, (time, (_, _, *prices, _)) in enumerate(zip(times, last, strict=True), 1)
    ]
    volume = viewer.ask(find("market", "Without closed hours: volume"), values)
    assert volume.rows == [(time, each[-1]) for time, each in zip(times, last, strict=True)]


def test_only_candles_of_the_range_are_shown(viewer: Viewer) -> None:
    range_ = Range(CLOCK - timedelta(hours=2), CLOCK - timedelta(hours=1))
    shown = viewer.ask(find("market", "$symbol $timeframe"), CHOICES, range_)
    expected = [c for c in candles(viewer, "AAPL", 5) if range_.since <= c[0] < range_.until]
    assert shown.rows == expected


def test_the_day_of_a_symbol(viewer: Viewer) -> None:
    days = candles(viewer, "AAPL", 24 * 60, regular=True)
    *_, before, last = [close for *_, close, _ in days]
    shown = viewer.ask(find("market", "$symbol on the day"), CHOICES)
    assert shown.column("close") == [before, last]
    assert shown.column("change")[-1] == pytest.approx(100 * (last / before - 1))


class Event(NamedTuple):
    id: int
    symbol: str
    timeframe: str
    pattern: str
    ts: datetime
    direction: str
    price: Decimal
    lag: timedelta
    late: bool
    retracted: bool


def events(viewer: Viewer) -> list[Event]:
    rows = viewer.owner.execute(
        "select id, symbol, timeframe, pattern, ts, direction, price, lag, late,"
        " retracted_at is not null from events order by ts, id"
    ).fetchall()
    return [Event(*row) for row in rows]


NONE_CHOSEN: Values = {"symbol": [], "timeframe": [], "pattern": []}


@pytest.mark.parametrize(
    "chosen", [EVERYTHING, NONE_CHOSEN, {**EVERYTHING, "symbol": ["AAPL", "O'NE"]}]
)
@pytest.mark.parametrize("hours", [24 * 5, 6])
def test_events_are_counted(viewer: Viewer, chosen: Values, hours: int) -> None:
    range_ = Range(CLOCK - timedelta(hours=hours), CLOCK)
    symbols = chosen["symbol"] or All("")
    found = [
        event
        for event in events(viewer)
        if event.ts >= range_.since and (not isinstance(symbols, list) or event.symbol in symbols)
    ]
    assert found

    def shown(title: str) -> Answer:
        return viewer.ask(find("events", title), chosen, range_)

    assert shown("In the range").rows == [
        (
            len(found),
            len({event.symbol for event in found}),
            len({event.pattern for event in found}),
            sum(event.late for event in found),
            sum(event.retracted for event in found),
            statistics.median(event.lag.total_seconds() for event in found),
        )
    ]
    assert dict(shown("Per pattern").rows) == Counter(event.pattern for event in found)
    assert dict(shown("Per symbol").rows) == Counter(event.symbol for event in found)
    directions: Counter[tuple[float, str]] = Counter(
        (event.ts.timestamp() // 300 * 300, event.direction) for event in found
    )
    assert {
        (float(ts), direction): n for ts, direction, n in shown("Events by direction").rows
    } == directions
    newest = sorted(found, key=lambda event: (event.ts, event.id), reverse=True)[:200]
    live = shown("Live")
    assert live.column("time") == [event.ts for event in newest]
    assert live.column("symbol") == [event.symbol for event in newest]
    since = [int(ms) for ms in live.column("from")]
    assert since == [(e.ts - timedelta(minutes=400)).timestamp() * 1000 for e in newest]


def test_one_pattern_and_one_symbol_are_chosen(viewer: Viewer) -> None:
    values: Values = {**CHOICES, "symbol": "O'NE", "pattern": "Doji"}
    expected = [e for e in events(viewer) if (e.symbol, e.pattern) == ("O'NE", "Doji")]
    shown = viewer.ask(find("market", "Events of $symbol"), values)
    assert sorted(shown.column("time")) == [event.ts for event in expected][-200:]
    marks = viewer.ask(find("market", "Events"), values)
    standing = [event for event in expected if not event.retracted][-200:]
    assert marks.column("time") == [event.ts for event in reversed(standing)]
    assert marks.column("timeend") == [e.ts + timedelta(minutes=5) for e in reversed(standing)]
    first = standing[-1]
    assert marks.column("text")[0] == f"Doji neutral at {first.price}, strength 0.50"
    assert marks.column("tags")[0].split(",")[:2] == ["Doji", "neutral"]


def outcome(event: Event, closes: list[tuple[datetime, Decimal]], after: int) -> float | None:
    later = [close for ts, close in closes if ts > event.ts]
    if len(later) < after:
        return None
    sign = -1 if event.direction == "short" else 1
    return sign * (float(later[after - 1] / event.price) - 1)


def test_what_happened_after_is_that_of_the_candles(viewer: Viewer) -> None:
    # The last candle is forming still: nothing is known of it.
    closes = {
        symbol: [(ts, close) for ts, *_, close, _ in candles(viewer, symbol, 5)][:-1]
        for symbol in ("AAPL", "TSLA", "O'NE")
    }
    standing = [event for event in events(viewer) if not event.retracted]
    shown = viewer.ask(find("events", "What happened after"), EVERYTHING)
    newest = sorted(standing, key=lambda e: (e.ts, e.id), reverse=True)[: len(shown.rows)]
    assert len(shown.rows) == 50
    for event, row in zip(newest, shown.rows, strict=True):
        assert row[0] == event.ts
        for after, given in zip((1, 5, 20), row[-3:], strict=True):
            expected = outcome(event, closes[event.symbol], after)
            given = None if given is None else float(given)
            assert given == (None if expected is None else pytest.approx(expected, abs=1e-6))
    old = [e for e in standing if e.ts + timedelta(minutes=105) <= CLOCK and e.pattern == "GapDown"]
    [row] = viewer.ask(
        find("events", "How often they were right"), {**EVERYTHING, "pattern": ["GapDown"]}
    ).rows
    returns = [outcome(e, closes[e.symbol], 5) for e in old[-row[3] :]]
    known = [each for each in returns if each is not None]
    assert row[:5] == ("GapDown", "5min", "short", min(60, len(old)), len(known))
    assert float(row[6]) == pytest.approx(sum(each > 0 for each in known) / len(known))
    assert float(row[9]) == pytest.approx(statistics.mean(known), abs=1e-6)


def test_owed_minutes_are_counted_where_they_lie(viewer: Viewer) -> None:
    # The first and the last quarter of an hour of a stretch are not sure. What all symbols lack, the two
    # that were once subscribed by name lack as well.
    owed: dict[tuple[str, str], int] = defaultdict(int)
    for since, until, symbols in (
        ("11-24 06:00", "11-24 06:16", 2),
        ("11-24 06:45", "11-24 09:00", 2),
        ("11-24 09:00", "11-24 09:16", 3),
        ("11-25 10:05", "11-25 11:56", 3),
        ("11-28 13:14", "11-28 13:30", 3),
    ):
        minute = datetime.strptime(f"2025-{since} -0500", "%Y-%m-%d %H:%M %z")
        while f"{minute:%m-%d %H:%M}" < until:
            owed[f"{minute:%Y-%m-%d}", f"{minute:%H}:00"] += symbols
            minute += timedelta(minutes=1)
    shown = viewer.ask(find("operations", "Owed minutes, by day and hour of New York"), CHOICES)
    # Thirty days, each with the same rows: a heat map needs a grid.
    days = {ts: {m: v for t, m, v in shown.rows if t == ts} for ts in shown.column("time")}
    assert len(days) == 31
    assert {tuple(hours) for hours in days.values()} == {tuple(f"{h:02}:00" for h in range(4, 20))}
    found = {
        (f"{ts.astimezone(NEW_YORK):%Y-%m-%d}", hour): value
        for ts, hours in days.items()
        for hour, value in hours.items()
    }
    assert {key: value for key, value in found.items() if value} == owed
    for closed in ("2025-11-27", "2025-11-23"):  # Thanksgiving, a Sunday
        assert {value for (day, _), value in found.items() if day == closed} == {None}
    friday = {hour: value for (day, hour), value in found.items() if day == "2025-11-28"}
    # The feed has come to 13:30 of that half day.
    assert next(hour for hour, value in friday.items() if value is None) == "14:00"


def test_operations_tell_what_was_written(viewer: Viewer) -> None:
    def shown(title: str) -> Answer:
        return viewer.ask(find("operations", title), CHOICES)

    assert set(shown("Lag").column("lag")) == {3.0}
    assert set(shown("Bars a minute").column("bars")) == {3.0}
    assert sum(shown("Events").column("events")) == len(events(viewer))
    assert max(shown("Lag of events").column("longest")) == 6
    assert shown("Feed").column("refused today") == [1]
    assert shown("Refused lately").column("reason") == ["low above open"]
    assert shown("What the feed owes").column("minutes")[:7] == [16] * 3 + [111] * 3 + [16]
    assert shown("Subscriptions").column("reason") == ["stopped", "lost", "lost"]
    assert shown("Subscriptions").column("symbols") == ["all", "all", "2"]
    [(frames, spilled, waiting, _, dirty, oldest)] = shown("What waits").rows
    assert (frames, spilled) == (None, None), "nobody ingests"
    # Two symbols' half hours of 12:00, 12:30 and 13:00, and of the others the one that is forming.
    assert (waiting, dirty, oldest) == (0, 2 * 3 + 2, 90 * 60)
    assert shown("Scan queue").column("candles") == [0] * 9
    sizes = dict(
        zip(shown("Sizes").column("relation"), shown("Sizes").column("bytes"), strict=True)
    )
    assert {"ohlcv_1min", "ohlcv_5min", "events"} <= sizes.keys()


def test_operations_tell_what_waits_in_ingest(viewer: Viewer) -> None:
    ingest = viewer.owner
    stretch = fetch_value(ingest, "select tickstock.open_stretch('wss://feed', 'AM', null)")
    ingest.execute("select tickstock.hold_stretch(%s)", (stretch,))
    ingest.execute(
        "select tickstock.extend_stretch(%s, %s, %s, 1, 7, 4096, '2 s')", (stretch, CLOCK, CLOCK)
    )
    shown = viewer.ask(find("operations", "What waits"), CHOICES)
    ingest.execute("delete from feed_stretches where id = %s", (stretch,))
    ingest.execute("select pg_advisory_unlock_all()")
    assert (shown.column("frames in ingest"), shown.column("spilled")) == ([7], [4096])


def test_variables_offer_what_there_is(viewer: Viewer) -> None:
    symbol = viewer.ask(find("market", "symbol"), {})
    assert sorted(symbol.column("symbol")) == ["AAPL", "NEW", "O'NE", "OLD", "TSLA"]
    timeframe = viewer.ask(find("market", "timeframe"), {})
    assert timeframe.column("timeframe")[:3] == ["1min", "5min", "15min"]
    assert len(viewer.ask(find("market", "pattern"), {}).rows) == 3


@pytest.mark.parametrize(
    "typed", ["'; drop table events; --", "x' or '1'='1", "\\' or 1=1 --", "%"]
)
def test_what_a_viewer_types_stays_a_value(viewer: Viewer, typed: str) -> None:
    values: Values = {**CHOICES, "symbol": typed}
    for query in QUERIES:
        if query.dashboard == "market" and "${symbol" in query.sql:
            assert viewer.ask(query, values).rows == [], query
        elif "${symbol" in query.sql and query.kind == "table":
            assert viewer.ask(query, {**EVERYTHING, "symbol": typed}).rows == [], query
    assert events(viewer)


def test_the_reader_can_only_read(viewer: Viewer) -> None:
    """Grafana lets anybody who may look at a panel send any SQL: it is the role that keeps them out."""
    for statement in (
        "delete from events",
        "drop table events",
        "insert into consumers values ('x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            viewer.conn.execute(statement.encode())
