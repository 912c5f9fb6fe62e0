"""Any change of bars, in any order, refreshed or not: after each step every candle is exact.

The machine keeps its own copy of the bars, so that a bar that is lost or changed in passing (on its
way through the columnstore, say) shows, too. TICKSTOCK_TEST_STEPS: how many steps per engine.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import ClassVar, NamedTuple, TypeAlias

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Engine
from tests.contract.exchange import NEW_YORK, schedule
from tests.contract.oracle import (
    OFFICIAL,
    Calendar,
    Key,
    Session,
    differences,
    read_snapshot,
)
from tickstock.bars import Bar
from tickstock.db.connection import connect
from tickstock.db.writer import write_bars

STEPS = int(os.environ.get("TICKSTOCK_TEST_STEPS", "160"))
STEPS_AT_ONCE = 40
"""On one database, until the next one begins anew."""

WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)

# Clocks put forward and back, a holiday and the half day after it, the turn of a week, a month and a
# year; before, at and after the edges of candles and sessions.
DAYS = [
    date(2025, 3, 7),
    date(2025, 3, 9),
    date(2025, 3, 10),
    date(2025, 10, 31),
    date(2025, 11, 2),
    date(2025, 11, 3),
    date(2025, 11, 27),
    date(2025, 11, 28),
    date(2025, 12, 31),
    date(2026, 1, 2),
]
TIMES = [
    time(0, 58),
    time(3, 45),
    time(9, 28),
    time(11, 57),
    time(12, 58),
    time(15, 58),
    time(18, 40),
]
SYMBOLS = ["A", "BRK.B", "ZZ"]


class Numbers(NamedTuple):
    """A bar without its key."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    vwap: Decimal | None
    trades: int | None


Bars: TypeAlias = dict[Key, Numbers]


class Run(NamedTuple):
    """Minutes of a symbol that follow each other."""

    symbol: str
    start: datetime
    minutes: int

    @property
    def end(self) -> datetime:
        return self.start + self.minutes * MINUTE

    def keys(self) -> list[Key]:
        return [(self.symbol, self.start + i * MINUTE) for i in range(self.minutes)]


class Kind(NamedTuple):
    """From what the numbers of a run are made."""

    price: int
    """In cents."""
    volume: int
    tells: str
    """vwap, trades, both or neither; in turns: each bar another."""

    def numbers(self, i: int) -> Numbers:
        price = Decimal(self.price + 7 * i) / 100
        tells = ("vwap", "trades", "both")[i % 3] if self.tells == "turns" else self.tells
        return Numbers(
            open=price,
            high=price + 3,
            low=price / 2,
            close=price + 1,
            volume=self.volume + Decimal(i) / 2,
            vwap=price + Decimal("0.0001") if tells in ("vwap", "both") else None,
            trades=i if tells in ("trades", "both") else None,
        )


def moment(day: date, at: time) -> datetime:
    return datetime.combine(day, at, NEW_YORK).astimezone(UTC)


STARTS = st.builds(moment, st.sampled_from(DAYS), st.sampled_from(TIMES))
RUNS = st.builds(Run, st.sampled_from(SYMBOLS), STARTS, st.integers(1, 40))
KINDS = st.builds(
    Kind,
    st.integers(1, 10_000),
    st.integers(0, 1_000),
    st.sampled_from(["vwap", "trades", "both", "neither", "turns"]),
)
SESSIONS = st.sampled_from(
    [None, (time(9, 30), time(13)), (time(9, 30), time(16)), (time(11), time(19, 30))]
)

COLUMNS = {
    "symbol": "text",
    "ts": "timestamptz",
    **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), "numeric"),
    "trades": "bigint",
}
NAMES = ", ".join(COLUMNS)
ROWS = f"unnest({', '.join(f'%s::{kind}[]' for kind in COLUMNS.values())}) r ({NAMES})"
INSERT = f"insert into ohlcv_1min ({NAMES}) select r.* from {ROWS}"
REPLACE = f"""
on conflict (symbol, ts) do update set
{", ".join(f"{name} = excluded.{name}" for name in list(COLUMNS)[2:])}
"""
COPY = f"copy ohlcv_1min ({NAMES}) from stdin"
MERGE = f"merge into ohlcv_1min b using {ROWS} on b.symbol = r.symbol and b.ts = r.ts"
MERGE_NEW = f"""
when not matched then insert ({NAMES}) values ({", ".join(f"r.{name}" for name in COLUMNS)})
"""
MERGE_OLD = """
when matched and extract(minute from b.ts)::int %% 3 = 0 then delete
when matched then update set volume = r.volume
"""
RANGE = "symbol = %s and ts >= %s and ts < %s"


def parameters(bars: Bars) -> list[list[object]]:
    """Those of ROWS."""
    return [[(*key, *bar)[i] for key, bar in bars.items()] for i in range(len(COLUMNS))]


def has_merge(machine: "Machine") -> bool:
    """TimescaleDB refuses MERGE into what may have a columnstore."""
    return machine.engine.name != "community"


class Machine(RuleBasedStateMachine):
    engine: ClassVar[Engine]
    steps: ClassVar[int]

    known = Bundle("known")
    """Runs that have been written: corrections need something to correct."""
    somewhere = st.one_of(known, known, RUNS)

    def __init__(self) -> None:
        super().__init__()
        self.url = self.engine.clone()
        # Two sessions take turns in writing and reading: plans that one has cached must not outlive
        # what the other has changed.
        self.conn, self.other = (connect(self.url, program="machine") for _ in range(2))
        self.bars: Bars = {}
        self.dropped: Bars = {}
        self.since: datetime | None = None
        self.calendar: Calendar = OFFICIAL

    def teardown(self) -> None:
        self.conn.close()
        self.other.close()
        self.engine.drop(self.url)

    @invariant()
    def everything_is_exact(self) -> None:
        type(self).steps += 1
        self.conn, self.other = self.other, self.conn
        snapshot = read_snapshot(self.conn)
        stored = {(row[0], row[1]): row[2:9] for row in snapshot.bars}
        assert stored == self.bars
        dropped = [(*key, *numbers) for key, numbers in self.dropped.items()]
        assert differences(snapshot, self.calendar, dropped) == []

    # Writing

    @initialize(target=known, run=RUNS, kind=KINDS)
    def begin(self, run: Run, kind: Kind) -> Run:
        return self._write(run, kind, INSERT + REPLACE)

    @rule(target=known, run=somewhere, kind=KINDS)
    def upsert(self, run: Run, kind: Kind) -> Run:
        return self._write(run, kind, INSERT + REPLACE)

    @rule(target=known, run=somewhere, kind=KINDS)
    def insert_what_is_missing(self, run: Run, kind: Kind) -> Run:
        return self._write(run, kind, INSERT + " on conflict do nothing", only_new=True)

    @precondition(has_merge)
    @rule(target=known, run=somewhere, kind=KINDS)
    def merge_what_is_missing(self, run: Run, kind: Kind) -> Run:
        return self._write(run, kind, MERGE + MERGE_NEW, only_new=True)

    def _write(self, run: Run, kind: Kind, statement: str, *, only_new: bool = False) -> Run:
        bars = self._made(run, kind)
        if only_new:
            bars = {key: bar for key, bar in bars.items() if key not in self.bars}
        with self._refused_where_dropped(bars):
            self.conn.execute(statement, parameters(self._made(run, kind)))
            self.bars |= bars
        return run

    @rule(target=known, run=somewhere, kind=KINDS)
    def copy(self, run: Run, kind: Kind) -> Run:
        bars = {key: bar for key, bar in self._made(run, kind).items() if key not in self.bars}
        with self._refused_where_dropped(bars):
            with self.conn.cursor().copy(COPY) as rows:
                for key, numbers in bars.items():
                    rows.write_row((*key, *numbers))
            self.bars |= bars
        return run

    @rule(target=known, run=somewhere, kind=KINDS)
    def load(self, run: Run, kind: Kind) -> Run:
        """As the feed and files do: what is impossible by now is refused, the rest is stored."""
        bars = self._made(run, kind)
        written = write_bars(
            self.conn, [Bar._make((*key, *numbers)) for key, numbers in bars.items()], source="test"
        ).counts
        possible = {key: bar for key, bar in bars.items() if not self._is_dropped(key[1])}
        assert written.received == len(bars)
        assert written.refused == len(bars) - len(possible)
        assert written.inserted == len(possible.keys() - self.bars.keys())
        for key, bar in possible.items():
            self.bars[key] = completed(bar, self.bars.get(key))
        return run

    @precondition(has_merge)
    @rule(run=somewhere, kind=KINDS)
    def merge(self, run: Run, kind: Kind) -> None:
        bars = self._made(run, kind)
        statement = MERGE + MERGE_OLD + MERGE_NEW
        with self._refused_where_dropped(bars):
            self.conn.execute(statement, parameters(bars))
            for key, bar in bars.items():
                if key not in self.bars:
                    self.bars[key] = bar
                elif key[1].minute % 3 == 0:
                    del self.bars[key]
                else:
                    self.bars[key] = self.bars[key]._replace(volume=bar.volume)

    # Correcting

    @rule(run=somewhere, more=st.integers(0, 1_000))
    def correct(self, run: Run, more: int) -> None:
        self.conn.execute(
            f"update ohlcv_1min set close = high, volume = volume + %s where {RANGE}",
            (more, run.symbol, run.start, run.end),
        )
        for key in self._present(run):
            bar = self.bars[key]
            self.bars[key] = bar._replace(close=bar.high, volume=bar.volume + more)

    @rule(run=somewhere)
    def delete(self, run: Run) -> None:
        self.conn.execute(f"delete from ohlcv_1min where {RANGE}", (run.symbol, run.start, run.end))
        for key in self._present(run):
            del self.bars[key]

    @rule(run=somewhere, symbol=st.sampled_from([*SYMBOLS, "NEW"]))
    def rename(self, run: Run, symbol: str) -> None:
        self._move(run, run._replace(symbol=symbol))

    @rule(run=somewhere, minutes=st.sampled_from([-45, 45, 90]))
    def shift(self, run: Run, minutes: int) -> None:
        to = run._replace(start=run.start + minutes * MINUTE)
        # TimescaleDB's own limit: no row moves to another chunk.
        if week(min(run.start, to.start)) == week(max(run.end, to.end) - MINUTE):
            self._move(run, to)

    def _move(self, run: Run, to: Run) -> None:
        """Bars that are in the way give way."""
        places = {key: (to.symbol, key[1] - run.start + to.start) for key in self._present(run)}
        in_the_way = self._present(to) if to != run else set()
        moved = {place: self.bars[key] for key, place in places.items()}
        with self._refused_where_dropped(moved):
            try:
                with self.conn.transaction():
                    for key in in_the_way:
                        self.conn.execute(
                            "delete from ohlcv_1min where symbol = %s and ts = %s", key
                        )
                    self.conn.execute(
                        f"update ohlcv_1min set symbol = %s, ts = ts + %s where {RANGE}",
                        (to.symbol, to.start - run.start, run.symbol, run.start, run.end),
                    )
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.InternalError_):
                # In the columnstore a key does not change, which TimescaleDB says in one way or another:
                # take the bars out, and put them in again.
                with self.conn.transaction():
                    for moving in (to, run):
                        self.conn.execute(
                            f"delete from ohlcv_1min where {RANGE}",
                            (moving.symbol, moving.start, moving.end),
                        )
                    self.conn.execute(INSERT, parameters(moved))
            for key in in_the_way | places.keys():
                del self.bars[key]
            self.bars |= moved

    @rule(symbol=st.sampled_from([*SYMBOLS, "NEW", None]))
    def vanish(self, symbol: str | None) -> None:
        """One symbol is delisted, or all of it is gone."""
        if symbol is None:
            self.conn.execute("truncate ohlcv_1min")
            self.bars = {}
        else:
            self.conn.execute("delete from ohlcv_1min where symbol = %s", (symbol,))
            self.bars = {key: bar for key, bar in self.bars.items() if key[0] != symbol}

    @rule(run=somewhere, kind=KINDS)
    def change_of_mind(self, run: Run, kind: Kind) -> None:
        """What was rolled back has never been."""
        with self.conn.transaction() as transaction:
            if not any(self._is_dropped(key[1]) for key in run.keys()):  # noqa: SIM118
                self.conn.execute(INSERT + REPLACE, parameters(self._made(run, kind)))
            self.conn.execute("delete from ohlcv_1min where symbol = %s", (run.symbol,))
            raise psycopg.Rollback(transaction)

    # Keeping house

    @rule(bulk_symbols=st.sampled_from([1, 100]))
    def refresh(self, bulk_symbols: int) -> None:
        """On community, by half hours or candle by candle."""
        self.conn.execute(
            "select set_config('tickstock.bulk_symbols', %s, false)", (str(bulk_symbols),)
        )
        self.conn.execute("call ohlcv_refresh()")

    @precondition(lambda self: self.bars)
    @rule(
        target=known,
        symbols=st.sets(st.sampled_from(SYMBOLS), min_size=1),
        minutes=st.integers(1, 15),
        kind=KINDS,
        late=st.integers(0, 25),
    )
    def go_on(self, symbols: set[str], minutes: int, kind: Kind, late: int) -> Run:
        """The feed: minute by minute, refreshed in between, which makes candles of a half hour that is
        still forming. And a bar that is late by so many minutes, before the last one."""
        start = max(ts for _, ts in self.bars) + MINUTE
        runs = [Run(symbol, start, minutes) for symbol in sorted(symbols)]
        bars = {key: bar for run in runs for key, bar in self._made(run, kind).items()}
        for i in range(minutes):
            ts = start + i * MINUTE
            if late and i == minutes - 1 and not self._is_dropped(ts - late * MINUTE):
                self._write(Run(runs[-1].symbol, ts - late * MINUTE, 1), kind, INSERT + REPLACE)
            minute = {key: bar for key, bar in bars.items() if key[1] == ts}
            self.conn.execute(INSERT, parameters(minute))
            self.bars |= minute
            self.refresh(1)
        return runs[0]

    @precondition(lambda self: self.engine.name == "community")
    @rule()
    def compress(self) -> None:
        self.conn.execute("call tickstock.to_columnstore('infinity')")

    @rule(day=st.sampled_from(DAYS), later=st.sampled_from([0, 3, 10]))
    def drop(self, day: date, later: int) -> None:
        before = moment(day, time(12)) + timedelta(days=later)
        since = week(before)
        already = self.since is not None and since <= self.since
        if not already and (not self.bars or since > max(ts for _, ts in self.bars) - WEEK):
            with pytest.raises(psycopg.errors.RaiseException, match="last week"):
                self.conn.execute("call drop_bars(%s)", (before,))
            return
        self.conn.execute("call drop_bars(%s)", (before,))
        if not already:
            self.since = since
            self.dropped |= {key: bar for key, bar in self.bars.items() if key[1] < since}
            self.bars = {key: bar for key, bar in self.bars.items() if key[1] >= since}

    @rule(day=st.sampled_from(DAYS), hours=SESSIONS)
    def change_calendar(self, day: date, hours: tuple[time, time] | None) -> None:
        self._set_session(day, hours and (moment(day, hours[0]), moment(day, hours[1])))

    @rule(day=st.sampled_from(DAYS))
    def restore_calendar(self, day: date) -> None:
        self._set_session(day, schedule().get(day))

    def _set_session(self, day: date, session: Session | None) -> None:
        statement: str = "delete from trading_days where day = %s"
        values: tuple[object, ...] = (day,)
        changes = session is not None or self.calendar.session(day) is not None
        if session is not None:
            statement = (
                "insert into trading_days values (%s, %s, %s) on conflict (day) do update"
                " set opens_at = excluded.opens_at, closes_at = excluded.closes_at"
            )
            values = (day, *session)
        if changes and self.since and day <= self.since.astimezone(NEW_YORK).date():
            with pytest.raises(psycopg.errors.RaiseException, match="calendar can't change there"):
                self.conn.execute(statement, values)
            return
        self.conn.execute(statement, values)
        self.calendar = self.calendar.with_day(day, session)

    # Helpers

    def _made(self, run: Run, kind: Kind) -> Bars:
        return {key: kind.numbers(i) for i, key in enumerate(run.keys())}

    def _present(self, run: Run) -> set[Key]:
        return {key for key in run.keys() if key in self.bars}  # noqa: SIM118

    def _is_dropped(self, ts: datetime) -> bool:
        return self.since is not None and ts < self.since

    @contextmanager
    def _refused_where_dropped(self, keys: Iterable[Key]) -> Iterator[None]:
        """The body must fail, and change nothing, where a bar's time has been dropped."""
        if any(self._is_dropped(ts) for _, ts in keys):
            bars = dict(self.bars)
            with pytest.raises(psycopg.errors.CheckViolation, match="have been dropped"):
                yield
            self.bars = bars
        else:
            yield


def week(moment: datetime) -> datetime:
    """Start of the chunk: weeks begin on Thursday, as 1970 did."""
    return (
        datetime(1970, 1, 1, tzinfo=UTC)
        + (moment - datetime(1970, 1, 1, tzinfo=UTC)) // WEEK * WEEK
    )


def completed(bar: Numbers, there: Numbers | None) -> Numbers:
    """Sources complete each other, as long as they agree on prices and volume."""
    if there is None or bar[:5] != there[:5]:
        return bar
    return bar._replace(
        vwap=there.vwap if bar.vwap is None else bar.vwap,
        trades=there.trades if bar.trades is None else bar.trades,
    )


# Shrinking a failure takes minutes: here it is printed as it was found.
@pytest.mark.timeout(1800)
def test_every_candle_is_exact_after_each_step(
    engine: Engine, record_property: Callable[[str, object], None]
) -> None:
    class MachineOfEngine(Machine):
        pass

    MachineOfEngine.engine, MachineOfEngine.steps = engine, 0
    run_state_machine_as_test(
        MachineOfEngine,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_AT_ONCE),
            stateful_step_count=min(STEPS, STEPS_AT_ONCE),
            deadline=None,
            print_blob=True,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    record_property("steps", MachineOfEngine.steps)
