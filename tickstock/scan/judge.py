"""Asking the patterns of one timeframe about spans of candles."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
import orjson
import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.patterns import Parameters, SqlPattern
from tickstock.patterns.evaluate import DIRECTIONS, Chosen, Failures, Hits
from tickstock.scan.shown import Sessions, Shown, shown
from tickstock.scan.windows import Reader, Span, Windows, judgeable, read_windows

PATTERN_TIMEOUT = 10.0
"""Seconds that a pattern in SQL may take for the candles of a timeframe, unless it is set otherwise."""
LEFT_OUT = 60
"""So many times as long is it left out when it takes longer: a scanner loses a sixtieth of its time."""
SIGNS: dict[str, int] = {name: sign for sign, name in DIRECTIONS.items()}
# Read-only: what a pattern writes would be rolled back without a word.
LIMIT = """
select set_config('statement_timeout', %s, true), set_config('transaction_read_only', 'on', true)
"""
NOT_ITS_FAULT = ("40", "57", "55P03")
"""How codes of errors begin that no query makes by itself: two transactions in each other's way, somebody
who stops the query or the server, a lock that was waited for too long."""
SQL_PATTERN = sql.SQL("""
with candles as materialized (select * from tickstock.pattern_candles(%s, %s, %s, %s, %s, %s)),
parameters as (select {})
select symbol, judged, direction, strength::float8, details
from ({}
) p (symbol, judged, direction, strength, details)
""")
"""The bracket is on a line of its own: a query may end with a comment."""


class TimeLimit:
    """How long a pattern in SQL may take, in seconds, and which ones took longer a while ago.

    Threads may share it.
    """

    def __init__(self, seconds: float = PATTERN_TIMEOUT) -> None:
        self.seconds = seconds
        self._left_out: dict[tuple[str, str], float] = {}
        """Until when, by the monotonic clock."""

    def leaves_out(self, pattern: str, timeframe: str) -> bool:
        return time.monotonic() < self._left_out.get((pattern, timeframe), 0.0)

    def exceeded(self, pattern: str, timeframe: str) -> TimeoutError:
        """Leave it out from now on for a while; the error to report."""
        pause = LEFT_OUT * self.seconds
        self._left_out[pattern, timeframe] = time.monotonic() + pause
        return TimeoutError(
            f"it took more than {self.seconds:g} s, and was stopped: make its query cheaper, or raise "
            f"--pattern-timeout (TICKSTOCK_PATTERN_TIMEOUT). A scanner asks it again in {pause:g} s"
        )


@dataclass
class Found:
    """Events to be, as columns: the n-th of each list is of the n-th event."""

    candle: list[int] = field(default_factory=list)
    """Which of the candles judged."""
    pattern: list[str] = field(default_factory=list)
    direction: list[int] = field(default_factory=list)
    """1 long, -1 short, 0 neutral."""
    strength: list[float] = field(default_factory=list)
    details: list[Mapping[str, object]] = field(default_factory=list)
    candles_from: list[float] = field(default_factory=list)
    """Start of the first candle that the pattern looked at, seconds since 1970, UTC."""

    def __len__(self) -> int:
        return len(self.candle)


class Judged(NamedTuple):
    """What was asked about what, and found, in one timeframe."""

    timeframe: str
    asked: dict[str, dict[str, float]]
    """Names of patterns, with their parameters; without those that failed or took too long."""
    spans: list[Span]
    """What was judged, which may be more than was asked for: candles after it look back at it. First
    those of what was shown, then those of which all candles are gone."""
    shown: list[Shown]
    """With the candles judged, which are numbered from the first one's on."""
    found: Found

    @property
    def candles(self) -> int:
        """How many were judged."""
        return sum(len(each.ts) for each in self.shown)

    def each(self) -> Iterator[tuple[str, float]]:
        """Symbol and start (seconds since 1970, UTC) of the candles judged, by their numbers."""
        for some in self.shown:
            symbols = [span.symbol for span in some.spans]
            yield from zip(map(symbols.__getitem__, some.span), some.ts.tolist(), strict=True)

    def looked_back_to(self, numbers: Sequence[int], reach: int) -> list[float]:
        """Starts of the candles so many before these, or of the first ones there are."""
        judged = [(some.number >= 0).nonzero()[0] for some in self.shown]
        starts = [
            some.looked_back_to(places, reach)
            for some, places in zip(self.shown, judged, strict=True)
        ]
        of_these: list[float] = np.concatenate([*starts, np.empty(0)])[list(numbers)].tolist()
        return of_these


def judge(
    conn: Connection[TupleRow],
    timeframe: str,
    spans: Sequence[Span],
    chosen: Sequence[Chosen],
    failures: Failures,
    limit: TimeLimit,
    read: Reader = read_windows,
) -> Judged:
    """Ask these patterns about the complete candles of the spans, and those that look back at them."""
    reach = max(each.candles for each in chosen) - 1
    spans = judgeable(conn, timeframe, spans, reach=reach)
    windows = read(conn, timeframe, spans, reach=reach) if spans else Windows([], [])
    asked = {each.pattern.name: dict(each.parameters) for each in chosen}
    some = shown(windows)
    seen = [span for each in some for span in each.spans]
    seen += (each.span for each in windows.series if not each.judged)
    judged = Judged(timeframe, asked, seen, some, Found())
    if some:
        _ask_functions(conn, judged, chosen, failures)
        for one in chosen:
            if isinstance(one.pattern, SqlPattern):
                _ask_database(conn, judged, one, failures, limit)
    return judged


def _ask_functions(
    conn: Connection[TupleRow], judged: Judged, chosen: Sequence[Chosen], failures: Failures
) -> None:
    reach = {each.pattern.name: each.candles - 1 for each in chosen}
    noting = _Noting(failures)
    first = min(float(each.ts.min()) for each in judged.shown)
    last = max(float(each.ts.max()) for each in judged.shown)
    sessions = Sessions.read(conn, first, last)
    told = [
        (some, list(some.find(judged.timeframe, sessions, chosen, noting))) for some in judged.shown
    ]
    for name in noting.names:
        del judged.asked[name]
    before = 0
    for some, several in told:
        for hits in several:
            if hits.pattern not in noting.names:
                _add(judged.found, some, hits, reach[hits.pattern], before)
        before += len(some.ts)


class _Noting(Failures):
    """Passes on what it is told, and knows which patterns have failed: of these a part of the answer is
    missing, and no event may be taken back for that."""

    def __init__(self, beyond: Failures) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._beyond = beyond

    def report(self, pattern: str, timeframe: str, error: Exception) -> None:
        self._beyond.report(pattern, timeframe, error)

    def failed(self, pattern: str, timeframe: str, error: Exception) -> None:
        self.names.add(pattern)
        self._beyond.failed(pattern, timeframe, error)


def _add(found: Found, some: Shown, hits: Hits, reach: int, before: int) -> None:
    found.candle += (before + some.number[hits.at]).tolist()
    found.pattern += [hits.pattern] * len(hits.at)
    found.direction += hits.direction.tolist()
    found.strength += hits.strength.tolist()
    found.details += hits.told()
    found.candles_from += some.looked_back_to(hits.at, reach).tolist()


def query_of(pattern: SqlPattern, parameters: Parameters) -> sql.Composed:
    """The whole of it. Its arguments are those of `tickstock.pattern_candles()`."""
    names = [
        sql.SQL("{}::numeric as {}").format(value, sql.Identifier(name))
        for name, value in parameters.items()
    ]
    return SQL_PATTERN.format(
        sql.SQL(", ").join(names) if names else sql.SQL("null as none"),
        sql.SQL(pattern.query.replace("%", "%%")),  # a file of ours or the operator's
    )


def _ask_database(
    conn: Connection[TupleRow], judged: Judged, one: Chosen, failures: Failures, limit: TimeLimit
) -> None:
    """A pattern in SQL. One that fails, or takes too long, is reported, and was not asked: its events
    stay as they are."""
    pattern = one.pattern
    assert isinstance(pattern, SqlPattern)
    if limit.leaves_out(pattern.name, judged.timeframe):
        del judged.asked[pattern.name]
        return
    query = query_of(pattern, one.parameters)
    columns = [list(column) for column in zip(*judged.spans, strict=True)]
    began = time.monotonic()
    try:
        # A savepoint: a broken pattern must not stop the others, and the limits are for it alone.
        with conn.transaction(force_rollback=True):
            conn.execute(LIMIT, (f"{limit.seconds * 1000:.0f}",))
            rows = conn.execute(query, (judged.timeframe, *columns, one.candles, 0)).fetchall()
    except psycopg.errors.QueryCanceled:
        if time.monotonic() - began < limit.seconds:
            raise  # somebody else's wish
        del judged.asked[pattern.name]
        too_long = limit.exceeded(pattern.name, judged.timeframe)
        failures.report(pattern.name, judged.timeframe, too_long)
        return
    except psycopg.Error as error:
        if conn.closed or (error.sqlstate or "").startswith(NOT_ITS_FAULT):
            raise
        del judged.asked[pattern.name]
        failures.report(pattern.name, judged.timeframe, error)
        return
    answers, problem = _answers(judged, rows)
    if problem:
        failures.report(pattern.name, judged.timeframe, problem)
    found = judged.found
    for number, direction, strength, details in answers:
        found.candle.append(number)
        found.pattern.append(pattern.name)
        found.direction.append(direction)
        found.strength.append(strength)
        found.details.append(details)
    found.candles_from += judged.looked_back_to([number for number, *_ in answers], one.candles - 1)


Answer = tuple[int, int, float, dict[str, object]]
"""Number of the candle, direction, strength, details."""


def _answers(
    judged: Judged, rows: Sequence[TupleRow]
) -> tuple[Collection[Answer], ValueError | None]:
    """What makes sense of what a pattern in SQL says, and what is wrong with something else.

    One candle's nonsense must not cost the others their events: these would depend on what is beside.
    """
    numbers = {candle: n for n, candle in enumerate(judged.each())} if rows else {}
    found: dict[int, Answer] = {}
    problem = None
    contradicted = set()
    for symbol, ts, *rest in rows:
        try:
            answer = _checked(numbers, symbol, ts, *rest)
        except ValueError as error:
            problem = problem or error
            continue
        # Spans of one symbol may overlap where they look back: what is found twice is the same.
        if found.setdefault(answer[0], answer) != answer:
            contradicted.add(answer[0])
            problem = problem or ValueError(f"it says two things of {symbol} at {ts}")
    # Rows have no order: neither of them is the first.
    return [each for number, each in found.items() if number not in contradicted], problem


def _checked(
    numbers: Mapping[tuple[str, float], int],
    symbol: object,
    ts: object,
    direction: object,
    strength: float | None,
    details: object,
) -> Answer:
    """ValueError for an answer that makes no sense, whatever its columns are."""
    if not isinstance(symbol, str) or not isinstance(ts, datetime) or ts.tzinfo is None:
        raise ValueError(f"it found itself in {symbol!r} at {ts!r}: text and timestamptz expected")
    number = numbers.get((symbol, ts.timestamp()))
    if number is None:
        raise ValueError(f"it found itself in {symbol} at {ts}, which was not asked about")
    if not isinstance(direction, str) or direction not in SIGNS:
        raise ValueError(f"its direction is {direction!r}")
    if strength is None or not 0 <= strength <= 1:
        raise ValueError(f"its strength is {strength}, not 0 to 1")
    if not isinstance(details, dict):
        raise ValueError(f"its details are {details!r}, not an object")
    try:
        orjson.dumps(details)
    except TypeError as error:
        raise ValueError(f"its details are {details!r}: {error}") from None
    return number, SIGNS[direction], strength, details
