"""The table `patterns`: what there is, as scanners know it, and how it is set, as analysts want it."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import orjson
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.patterns import Pattern
from tickstock.patterns.evaluate import Chosen
from tickstock.patterns.reference import kind_of
from tickstock.patterns.settings import Setting, choose

log = logging.getLogger(__name__)

TELL = """
insert into patterns as p (pattern, kind, summary, source, default_timeframes, default_parameters, candles)
values (%s, %s, %s, %s, %s, %s, %s)
on conflict (pattern) do update set
  kind = excluded.kind, summary = excluded.summary, source = excluded.source,
  default_timeframes = excluded.default_timeframes, default_parameters = excluded.default_parameters,
  candles = excluded.candles
where (p.kind, p.summary, p.source, p.default_timeframes, p.default_parameters, p.candles) is distinct from
  (excluded.kind, excluded.summary, excluded.source, excluded.default_timeframes, excluded.default_parameters,
   excluded.candles)
"""
SET = "select pattern, enabled, timeframes, parameters from patterns order by pattern"


class Catalog:
    """The patterns of this program, and how the table sets them at the moment."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = sorted(patterns, key=lambda pattern: pattern.name)
        self._rows: list[TupleRow] | None = None
        self._chosen: dict[str, list[Chosen]] = {}

    def tell(self, conn: Connection[TupleRow]) -> None:
        """Write down what there is, so that it can be set."""
        # Sorted, so that two scanners that start together do not wait for each other in a circle.
        with conn.transaction(), conn.cursor() as cursor:
            cursor.executemany(TELL, [_row(pattern) for pattern in self._patterns])

    def read(self, conn: Connection[TupleRow]) -> dict[str, list[Chosen]]:
        """What to look for, by timeframe. Settings that can't be obeyed are reported, once."""
        ours = {pattern.name for pattern in self._patterns}
        rows = conn.execute(SET).fetchall()
        # At first, and again if what was told then has been rolled back, or deleted.
        if self._rows is None or not ours <= {row[0] for row in rows}:
            self.tell(conn)
            rows = conn.execute(SET).fetchall()
        if rows != self._rows:
            settings = [each for row in rows if row[0] in ours for each in settings_of(*row)]
            self._chosen, problems = choose(self._patterns, settings)
            for problem in problems:
                log.warning("%s. Correct it in the table patterns", problem)
            self._rows = rows
        return self._chosen


def _row(pattern: Pattern) -> tuple[object, ...]:
    candles = max(pattern.candles(pattern.parameters, t) for t in pattern.timeframes)
    return (
        *(pattern.name, kind_of(pattern), pattern.summary, pattern.source),
        list(pattern.timeframes),
        orjson.dumps(pattern.parameters).decode(),
        candles,
    )


def settings_of(
    pattern: str, enabled: bool, timeframes: list[str] | None, parameters: Mapping[str, float]
) -> Iterator[Setting]:
    """What a row of the table says."""
    if not enabled or timeframes is None:
        yield Setting(pattern, None, enabled, parameters)
        return
    yield Setting(pattern, None, False, {})
    for timeframe in dict.fromkeys(timeframes):
        yield Setting(pattern, timeframe, True, parameters)
