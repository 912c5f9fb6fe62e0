"""What scanning has found becomes events, and what it no longer finds is taken back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import ArrayLike
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.patterns import Floats
from tickstock.scan.arrays import float_arrays
from tickstock.scan.judge import Judged

RECORD = """
select made, retracted
from tickstock.record_events(%s::jsonb, %s::json, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb)
"""


class Recorded(NamedTuple):
    candles: int
    """That were judged."""
    made: int
    """Events that are new, or other than they were."""
    retracted: int


def record(conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
    """Within the caller's transaction, last: until its end, other scanners wait with their events."""
    candles = sum(each.candles for each in judged)
    if not any(each.spans for each in judged):
        return Recorded(candles, 0, 0)
    asked = {each.timeframe: each.asked for each in judged}
    spans = [
        {"timeframe": each.timeframe, **span._asdict()} for each in judged for span in each.spans
    ]
    with float_arrays(conn) as cursor:
        arguments = [_json(asked), _json(spans), *_candles(judged), *_events(judged)]
        made, retracted = cursor.execute(RECORD, arguments).fetchone() or (0, 0)
    return Recorded(candles, made, retracted)


def _candles(judged: Sequence[Judged]) -> list[object]:
    """Of each candle judged: the number of its span, from 1 on, its start, and its close."""
    of_span, starts, prices = [], [], []
    before = 1
    for each in judged:
        number = before
        for some in each.shown:
            of_span.append(some.span + number)
            starts.append(some.ts)
            prices += some.prices
            number += len(some.spans)
        before += len(each.spans)
    return [_floats(of_span), _floats(starts), " ".join(prices)]


def _events(judged: Sequence[Judged]) -> list[object]:
    """Of each event: the number of its candle, from 1 on, and of its pattern; and what it tells."""
    names = sorted({name for each in judged for name in each.asked})
    numbers = {name: number for number, name in enumerate(names, 1)}
    of_candle, details = [], []
    before = 1
    for each in judged:
        of_candle.append(np.array(each.found.candle, dtype=np.float64) + before)
        details += each.found.details
        before += each.candles
    found = [each.found for each in judged]
    return [
        names,
        _floats(of_candle),
        _floats([[numbers[name] for name in some.pattern] for some in found]),
        _floats([some.direction for some in found]),
        _floats([some.strength for some in found]),
        _floats([some.candles_from for some in found]),
        _json(details),
    ]


def _floats(parts: Sequence[ArrayLike]) -> Floats:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts] or [np.empty(0)])


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
