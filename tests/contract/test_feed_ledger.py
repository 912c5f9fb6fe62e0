"""What the feed owes, against an oracle that counts minutes one by one."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.e2e.program import until
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.ingest.ledger import Stretch as StretchOfIngest

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATE = 15
END = 150
"""Minutes after START that are told apart."""


class Stretch(NamedTuple):
    symbols: list[str] | None
    starts: int | None
    latest: int | None
    end: Literal["lost", "intended", "killed", "changed"]
    """changed: the next one goes on from it, with other symbols; the last one was just stopped."""

    def covers(self, alive: bool) -> set[int]:
        if self.starts is None or self.latest is None:
            return set()
        return set(range(self.starts + LATE + 1, self.latest - (0 if alive else LATE)))


class Told(NamedTuple):
    symbol: str
    starts: int
    ends: int
    final_before: int


minutes = st.integers(0, END - 20)
symbols = st.none() | st.lists(st.sampled_from(["A", "B"]), min_size=1, max_size=2, unique=True)
ends = st.sampled_from(["lost", "intended", "killed", "changed"])
with_data = st.builds(
    lambda s, starts, length, end: Stretch(s, starts, starts + length, end),
    symbols,
    minutes,
    st.integers(0, 60),
    ends,
)
silent = st.builds(Stretch, symbols, st.none(), st.none(), ends)
told = st.builds(
    lambda s, starts, length, final: Told(s, starts, starts + length, final),
    st.sampled_from(["A", "B", "*"]),
    minutes,
    st.integers(1, 60),
    st.integers(0, END),
)


def owed_by_counting(
    stretches: list[Stretch], alive: bool, backfills: list[Told], until: int
) -> set[tuple[str, int, int]]:
    """`alive`: the last stretch goes on."""
    found: set[tuple[str, int, int]] = set()
    everything, _ = runs_of("*", stretches)
    for symbol in {s for stretch in stretches for s in stretch.symbols or ["*"]}:
        own, is_newest = runs_of(symbol, stretches)
        if not any(s.starts is not None for s in own):
            continue
        newest = own[-1]
        newest_alive = alive and is_newest
        first = min(s.starts for s in own if s.starts is not None)
        beyond = max(s.latest for s in own if s.latest is not None) + 1
        if newest_alive and newest.latest is not None:
            beyond = max(newest.latest, first)
        elif newest_alive or newest.end in ("lost", "killed") or newest.latest is None:
            beyond = max(beyond, until)
        minutes = set(range(first, beyond))
        for run in own:
            minutes -= run.covers(newest_alive and run is newest)
        for run in everything:
            minutes -= run.covers(alive and stretches[-1].symbols is None and run is everything[-1])
        for each in backfills:
            if each.symbol in (symbol, "*"):
                minutes -= set(range(each.starts, min(each.ends, each.final_before)))
        found |= {(symbol, *run) for run in runs(minutes)}
    return found


def runs_of(symbol: str, stretches: list[Stretch]) -> tuple[list[Stretch], bool]:
    """The symbol's stretches, joined where others changed; and whether the last of all is one of them."""
    found: list[Stretch] = []
    goes_on = False
    for stretch in stretches:
        is_own = symbol in (stretch.symbols or ["*"])
        if is_own and goes_on:
            both = (found.pop(), stretch)
            starts = [s.starts for s in both if s.starts is not None]
            latest = [s.latest for s in both if s.latest is not None]
            found.append(
                Stretch([symbol], min(starts, default=None), max(latest, default=None), stretch.end)
            )
        elif is_own:
            found.append(stretch)
        goes_on = is_own and stretch.end == "changed"
    return found, is_own


def runs(minutes: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for minute in sorted(minutes):
        if found and found[-1][1] == minute:
            found[-1] = (found[-1][0], minute + 1)
        else:
            found.append((minute, minute + 1))
    return found


def ts(minute: int) -> datetime:
    return START + minute * MINUTE


def write(
    conn: Connection[TupleRow], stretches: list[Stretch], alive: bool, backfills: list[Told]
) -> None:
    conn.execute("truncate feed_stretches, minutes_complete, backfills restart identity")
    conn.execute("select pg_advisory_unlock_all()")
    changed = None
    for number, stretch in enumerate(stretches, 1):
        if changed:
            stretch_id = fetch_value(
                conn, "select tickstock.change_stretch(%s, %s)", changed, stretch.symbols
            )
        else:
            stretch_id = fetch_value(
                conn, "select tickstock.open_stretch('ws://x', 'AM', %s)", stretch.symbols
            )
        changed = stretch_id if stretch.end == "changed" and number < len(stretches) else None
        if stretch.starts is not None and stretch.latest is not None:
            # The first bar turns out to be a late one; and at last another late one comes.
            early = ts(stretch.starts - LATE - 1)
            for first, latest in (
                (early, early),
                (ts(stretch.starts), ts(stretch.latest)),
                (None, early),
            ):
                conn.execute(
                    "select tickstock.extend_stretch(%s, %s, %s, 1)", (stretch_id, first, latest)
                )
        if alive and number == len(stretches):
            conn.execute("select tickstock.hold_stretch(%s)", (stretch_id,))
        elif not changed and stretch.end != "killed":
            intended = stretch.end in ("intended", "changed")
            conn.execute("select tickstock.close_stretch(%s, 'over', %s)", (stretch_id, intended))
    for each in backfills:
        conn.execute(
            "select tickstock.settle(%s, %s, %s, %s, 'test', 0)",
            (each.symbol, ts(each.starts), ts(each.ends), ts(each.final_before)),
        )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    stretches=st.lists(with_data | silent, min_size=1, max_size=6),
    alive=st.booleans(),
    backfills=st.lists(told, max_size=4),
    until=st.integers(0, END),
    joined=st.integers(0, END),
)
def test_owed_is_what_was_promised_and_neither_covered_nor_told(
    conn: Connection[TupleRow],
    stretches: list[Stretch],
    alive: bool,
    backfills: list[Told],
    until: int,
    joined: int,
) -> None:
    write(conn, stretches, alive, backfills)
    rows = conn.execute("select * from tickstock.owed(%s)", (ts(until),)).fetchall()
    minute = timedelta(minutes=1)
    found = [(s, (a - START) // minute, (b - START) // minute) for s, a, b in rows]
    assert sorted(found) == sorted(owed_by_counting(stretches, alive, backfills, until))

    told_in_full = "select * from tickstock.told(null, '-infinity', 'infinity') order by symbol"
    before = conn.execute(told_in_full).fetchall()
    conn.execute("select tickstock.join_told(%s, 0)", (ts(joined),))
    assert conn.execute("select * from tickstock.owed(%s)", (ts(until),)).fetchall() == rows
    assert conn.execute(told_in_full).fetchall() == before
    # Nor is anything hidden that the one alive leaves when it dies.
    conn.execute("select pg_advisory_unlock_all()")
    rows = conn.execute("select * from tickstock.owed(%s)", (ts(until),)).fetchall()
    found = [(s, (a - START) // minute, (b - START) // minute) for s, a, b in rows]
    if alive:
        stretches = [*stretches[:-1], stretches[-1]._replace(end="killed")]
    assert sorted(found) == sorted(owed_by_counting(stretches, False, backfills, until))


def test_nothing_is_promised_of_the_hours_when_the_market_is_closed(
    conn: Connection[TupleRow],
) -> None:
    """Lost on Friday ten minutes before the last session ends, and back on Monday."""
    closing, sunday, opening = (
        datetime(2025, 11, 22, 1, tzinfo=UTC),
        datetime(2025, 11, 23, 17, tzinfo=UTC),
        datetime(2025, 11, 24, 9, tzinfo=UTC),
    )
    ten, late = 10 * MINUTE, LATE * MINUTE
    lost = (closing - ten - START) // MINUTE
    write(conn, [Stretch(["A"], lost - 60, lost, "lost")], False, [])
    owed = "select ends from tickstock.owed(%s) where starts = %s"
    for now, ends in ((sunday, closing), (opening, closing), (opening + ten, opening + ten)):
        assert fetch_value(conn, owed, now, closing - ten - late) == ends


def test_a_year_of_lost_connections_leaves_few_rows(conn: Connection[TupleRow]) -> None:
    day, symbols = 24 * 60, ["A", "B", "C", "D", "E"]
    conn.execute(
        "insert into feed_stretches (feed, channel, symbols, opened_at, starts, latest, closed_at, reason)"
        " select 'ws://x', 'AM', %s, t, t, t + interval '80 minutes', t + interval '80 minutes', 'lost'"
        " from generate_series(%s, %s, interval '90 minutes') t",
        (symbols, ts(0), ts(50 * day)),
    )
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume) values ('A', %s, 1, 1, 1, 1, 1)",
        (ts(50 * day),),
    )
    # Of one gap nobody was ever told.
    conn.execute(
        "select tickstock.settle(symbol, starts, ends, 'infinity', 'rest', 3) from feed_gaps"
        " where not %s::timestamptz between starts and ends",
        (ts(5 * day),),
    )
    gaps = "select symbol, starts, ends, minutes, reason from feed_gaps order by symbol, starts"
    told = "select * from tickstock.told(null, '-infinity', 'infinity') order by symbol"
    before = [conn.execute(query).fetchall() for query in (gaps, told)]
    assert len(before[0]) == len(symbols)
    month = "select count(*), sum(bars) from backfills where ends > %s"
    recent = conn.execute(month, (ts(19 * day),)).fetchone()
    bars = fetch_value(conn, "select sum(bars) from backfills")
    for _ in range(2):
        conn.execute("call ohlcv_keep_house()")
        assert [conn.execute(query).fetchall() for query in (gaps, told)] == before
        old = fetch_value(conn, "select count(*) from backfills where ends <= %s", ts(19 * day))
        assert old == 2 * len(symbols)
        assert conn.execute(month, (ts(19 * day),)).fetchone() == recent
        assert fetch_value(conn, "select sum(bars) from backfills") == bars


def test_what_was_asked_too_early_is_asked_again(conn: Connection[TupleRow]) -> None:
    write(conn, [Stretch(["A"], 0, 60, "lost")], False, [Told("A", 40, 60, 50)])
    rows = conn.execute("select starts, ends, settled from backfills order by starts").fetchall()
    assert rows == [(ts(40), ts(50), True), (ts(50), ts(60), False)]
    conn.execute("select tickstock.settle('A', %s, %s, %s, 'test', 3)", (ts(45), ts(60), ts(75)))
    rows = conn.execute("select starts, ends, settled from backfills order by starts").fetchall()
    assert rows == [(ts(40), ts(50), True), (ts(45), ts(60), True)]
    # What is told once stays told, even if it is asked again for a doubt, and too early.
    conn.execute("select tickstock.settle('A', %s, %s, %s, 'test', 3)", (ts(45), ts(60), ts(45)))
    assert conn.execute("select starts, ends, settled from backfills order by 1").fetchall() == rows


def askable(conn: Connection[TupleRow], clock: datetime) -> list[TupleRow]:
    return conn.execute("select starts, ends from tickstock.askable(%s)", (clock,)).fetchall()


def test_what_was_asked_too_early_is_askable_when_it_is_final(conn: Connection[TupleRow]) -> None:
    first = Told("A", 0, 16, END)
    write(conn, [Stretch(["A"], 0, 60, "intended")], False, [first])
    assert askable(conn, ts(62)) == [(ts(45), ts(61))]
    conn.execute("select tickstock.settle('A', %s, %s, %s, 'test', 3)", (ts(45), ts(61), ts(47)))
    assert [askable(conn, ts(minute)) for minute in (62, 75)] == [[], []]
    assert askable(conn, ts(76)) == [(ts(47), ts(61))]


def test_an_outage_that_goes_on_is_askable_now_and_then(conn: Connection[TupleRow]) -> None:
    first = Told("A", 0, 16, END)
    write(conn, [Stretch(["A"], 0, 60, "lost")], False, [first])
    half_a_minute = timedelta(seconds=30)
    assert askable(conn, ts(62) + half_a_minute) == [(ts(45), ts(62))], "in whole minutes"
    conn.execute("select tickstock.settle('A', %s, %s, %s, 'test', 3)", (ts(45), ts(62), ts(47)))
    assert [askable(conn, ts(minute)) for minute in (62, 76)] == [[], []]
    assert askable(conn, ts(77)) == [(ts(47), ts(77))]


def test_requests_are_pieces_none_of_which_is_empty(conn: Connection[TupleRow]) -> None:
    month = 30 * 24 * 60
    for length, pieces in (
        (1, [(0, 1)]),
        (2 * month, [(0, 2 * month)]),
        (2 * month + 1, [(2 * month, 2 * month + 1), (0, 2 * month)]),
    ):
        rows = conn.execute("select * from tickstock.requests(%s, %s)", (ts(0), ts(length)))
        assert rows.fetchall() == [(ts(starts), ts(ends)) for starts, ends in pieces]


def test_a_doubt_is_owed_until_it_is_told_for_good(conn: Connection[TupleRow]) -> None:
    def doubted(symbol: str, *answer: object) -> list[int]:
        """The minutes still in doubt after this answer."""
        conn.execute("truncate tickstock.doubts, backfills")
        conn.execute("insert into tickstock.doubts select 'A', unnest(%s)", ([ts(5), ts(10)],))
        conn.execute("select tickstock.settle(%s, %s, %s, %s, %s, 0)", (symbol, *answer))
        owed = conn.execute("select starts, ends from tickstock.owed(%s) order by 1", (ts(60),))
        return [
            minute
            for starts, ends in owed
            for minute in range((starts - START) // MINUTE, (ends - START) // MINUTE)
        ]

    assert doubted("A", ts(0), ts(20), ts(20), "rest") == []
    assert doubted("A", ts(5), ts(10), ts(20), "rest") == [10]
    assert doubted("A", ts(0), ts(20), ts(10), "rest") == [10], "that may still change"
    assert doubted("B", ts(0), ts(20), ts(20), "rest") == [5, 10]
    assert doubted("*", ts(0), ts(20), ts(20), "a file") == []
    # Not each symbol is asked for again then.
    assert doubted("*", ts(0), ts(20), ts(20), "rest") == [5, 10]


def test_only_what_may_be_a_minute_is_in_doubt(conn: Connection[TupleRow]) -> None:
    """What the source can't tell would be owed for ever."""
    days = 24 * 60
    clock = 20 * days
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', unnest(%s), 1, 1, 1, 1, 1",
        ([ts(0), ts(clock - 1)],),
    )
    possible = [clock - 10 * days, clock - 1, clock + LATE]
    doubted = [*possible, clock - 10 * days - 1, clock + LATE + 1]
    doubt = "select tickstock.doubt(array_fill('A'::text, array[%s]), %s)"
    conn.execute(doubt, (len(doubted), [ts(minute) for minute in doubted]))
    in_doubt = "select ts from tickstock.doubts order by ts"
    assert conn.execute(in_doubt).fetchall() == [(ts(minute),) for minute in possible]
    conn.execute("truncate tickstock.doubts")
    conn.execute("select tickstock.set_bars_since(%s)", (ts(clock - 5 * days),))
    conn.execute(doubt, (2, [ts(clock - 5 * days - 1), ts(clock - 5 * days)]))
    assert conn.execute(in_doubt).fetchall() == [(ts(clock - 5 * days),)]


def test_what_is_told_of_all_replaces_what_is_told_of_each_within(
    conn: Connection[TupleRow],
) -> None:
    of_each = [Told("A", 0, 5, END), Told("A", 6, 10, END), Told("A", 8, 30, END)]
    write(conn, [], False, [*of_each, Told("*", 0, 20, 5)])
    conn.execute("select tickstock.forget_told_by_all()")
    rows = conn.execute("select symbol, starts, ends from backfills order by 1, 2").fetchall()
    assert rows == [
        ("*", ts(0), ts(5)),
        ("*", ts(5), ts(20)),  # not for good
        ("A", ts(6), ts(10)),
        ("A", ts(8), ts(30)),
    ]


def test_the_view_tells_why_and_how_much(conn: Connection[TupleRow]) -> None:
    write(conn, [Stretch(["A"], 0, 60, "lost"), Stretch(["A"], 70, 120, "lost")], True, [])
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume) values ('A', %s, 1, 1, 1, 1, 1)",
        (ts(120),),
    )
    rows = conn.execute(
        "select symbol, starts, ends, minutes, asked_at, reason from feed_gaps order by starts"
    ).fetchall()
    assert rows == [
        ("A", ts(0), ts(16), 16, None, None),
        ("A", ts(45), ts(86), 41, None, "over"),
    ]


def test_a_bar_of_tomorrow_covers_nothing(conn: Connection[TupleRow]) -> None:
    """One with a wrong time, that is, as far as it is not refused: it must not hide what is missed."""
    now = fetch_value(conn, "select date_trunc('minute', clock_timestamp())")
    tomorrow = now + timedelta(hours=20)
    for first in (now - timedelta(hours=1), tomorrow):
        stretch_id = fetch_value(conn, "select tickstock.open_stretch('ws://x', 'AM', '{A}')")
        conn.execute(
            "select tickstock.extend_stretch(%s, %s, %s, 2)", (stretch_id, first, tomorrow)
        )
        conn.execute("select tickstock.close_stretch(%s, 'lost', false)", (stretch_id,))
    latest = fetch_value(conn, "select max(upper(covered)) from feed_live")
    assert now - timedelta(minutes=LATE) <= latest <= now
    first, last = conn.execute(
        "select min(starts), max(starts) from feed_stretches"
    ).fetchone() or (None, None)
    assert (first, now <= last < tomorrow) == (now - timedelta(hours=1), True)


def test_a_stretch_that_has_ended_stays_as_it_ended(conn: Connection[TupleRow]) -> None:
    """What it owes would be forgotten if it had been meant to end."""
    stretch_id = fetch_value(conn, "select tickstock.open_stretch('ws://x', 'AM', '{A}')")
    conn.execute("select tickstock.close_stretch(%s, 'lost', false)", (stretch_id,))
    ended = conn.execute("select * from feed_stretches").fetchall()
    conn.execute("select tickstock.close_stretch(%s, 'stopped', true)", (stretch_id,))
    change = "select tickstock.change_stretch(%s, '{B}')"
    assert fetch_value(conn, change, stretch_id) is None
    assert conn.execute("select * from feed_stretches").fetchall() == ended


def test_late_bars_alone_begin_no_stretch(conn: Connection[TupleRow]) -> None:
    stretch_id = fetch_value(conn, "select tickstock.open_stretch('ws://x', 'AM', '{A}')")
    conn.execute("select tickstock.extend_stretch(%s, null, %s, 2)", (stretch_id, ts(0)))
    assert fetch_value(conn, "select starts from feed_stretches") is None


def test_a_late_bar_begins_no_stretch_and_each_feed_has_its_own_time(
    conn: Connection[TupleRow],
) -> None:
    """Else a delayed feed beside another one would never cover a minute, and all would stay owed."""
    brought = [("wss://x", 15), ("wss://x", 14), ("wss://delayed.x", 0)]
    for feed, minute in brought:
        stretch = StretchOfIngest(conn, feed, "AM", None)
        with conn.transaction():
            stretch.extend(conn, [Bar("A", START + timedelta(minutes=minute), 1, 1, 1, 1, 1)])
    rows = conn.execute("select starts, latest from feed_stretches order by id").fetchall()
    assert rows == [(ts(15), ts(15)), (None, ts(14)), (ts(0), ts(0))]


def test_a_stretch_is_alive_as_long_as_its_session(
    conn: Connection[TupleRow], url: str, engine: Engine
) -> None:
    with connect(url, program="test") as other:
        stretch_id = fetch_value(other, "select tickstock.open_stretch('ws://x', 'AM', null)")
        beside = engine.clone()
        with connect(beside, program="test") as of_another_database:
            of_another_database.execute("select tickstock.hold_stretch(%s)", (stretch_id,))
            assert fetch_value(conn, "select alive from feed_live") is False
        engine.drop(beside)
        other.execute("select tickstock.hold_stretch(%s)", (stretch_id,))
        other.execute("select tickstock.hold_stretch(%s)", (stretch_id,))
        assert fetch_value(conn, "select alive from feed_live where id = %s", stretch_id) is True
    until(url, "select alive from feed_live where id = %s", False, stretch_id)


def test_what_was_covered_live_and_has_no_bar_is_confirmed_empty(
    conn: Connection[TupleRow],
) -> None:
    write(conn, [Stretch(["A"], 0, 60, "lost")], False, [Told("*", 50, 55, 55)])
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select s, ts, 1, 1, 1, 1, 1 from unnest(array['A', 'B']) s, unnest(%s::timestamptz[]) ts",
        ([ts(20), ts(99)],),
    )
    counts = (
        "select symbol, present, confirmed_empty, missing from coverage() where session = 'regular'"
    )
    # Live from the 16th minute up to the 45th, by the file for all symbols from the 50th up to the 55th.
    assert conn.execute(counts).fetchall() == [
        ("A", 2, 29 - 1 + 5, 100 - 2 - 33),
        ("B", 2, 5, 100 - 2 - 5),
    ]
    missing = "select starts, ends from missing_minutes('A') where session = 'regular'"
    told = [(ts(0), ts(16)), (ts(45), ts(50)), (ts(55), ts(99))]
    assert conn.execute(missing).fetchall() == told
    # One minute with a bar and one without are in doubt.
    conn.execute("insert into tickstock.doubts select 'A', unnest(%s)", ([ts(20), ts(30)],))
    assert conn.execute(counts).fetchall()[0] == ("A", 2, 29 - 2 + 5, 100 - 2 - 32)
    assert conn.execute(missing).fetchall() == [told[0], (ts(30), ts(31)), *told[1:]]


def test_bars_that_have_been_dropped_are_not_owed(conn: Connection[TupleRow]) -> None:
    """REST would be asked for them for ever: what it tells is refused, and that it told is forgotten."""
    day = 24 * 60
    write(
        conn, [Stretch(["A"], 0, 60, "lost"), Stretch(["A"], 70, 35 * day, "intended")], False, []
    )
    conn.execute("insert into tickstock.doubts values ('B', %s), ('B', %s)", (ts(30), ts(34 * day)))
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', ts, 1, 1, 1, 1, 1 from generate_series(%s, %s, interval '1 day') ts",
        (ts(0), ts(35 * day)),
    )
    told = (
        "select count(tickstock.settle(symbol, starts, ends, 'infinity', 'rest', 3)) from feed_gaps"
    )
    assert fetch_value(conn, told) == 5
    gaps = "select symbol, starts, ends from feed_gaps order by symbol, starts"
    assert conn.execute(gaps).fetchall() == []
    conn.execute("insert into tickstock.doubts values ('B', %s), ('B', %s)", (ts(30), ts(34 * day)))
    reaching_over = (ts(10 * day), ts(30 * day))
    conn.execute("select tickstock.settle('A', %s, %s, 'infinity', 'rest', 3)", reaching_over)
    conn.execute("call drop_bars(%s)", (ts(20 * day),))
    oldest = conn.execute("select starts, ends from backfills order by ends limit 1").fetchall()
    assert oldest == [reaching_over], "what was told of the others is forgotten"
    doubt = ("B", ts(34 * day), ts(34 * day + 1))
    assert conn.execute(gaps).fetchall() == [doubt]
    # Nor is any part of what reaches over the border.
    since = fetch_value(conn, "select tickstock.bars_since()")
    write(
        conn,
        [Stretch(["A"], 0, 60, "lost"), Stretch(["A"], 30 * day, 35 * day, "intended")],
        False,
        [],
    )
    assert conn.execute(gaps).fetchall() == [
        ("A", since, ts(30 * day + LATE + 1)),
        ("A", ts(35 * day - LATE), ts(35 * day + 1)),
        doubt,
    ]
