"""Parsing of seconds (A) and trades (T): form alone is judged, and neighbours stay."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickstock.feed.frames import Frame, parse_frame
from tickstock.ticks import Second, Trade, Venue

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
AT = 1_755_932_400_123
START = AT - 123
MINUTE = datetime.fromtimestamp(START // 1_000, UTC)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TRADE: dict[str, Any] = {
    "ev": "T", "sym": "AAPL", "x": 4, "i": "12345", "z": 3, "p": 150.25, "s": 100,
    "c": [14, 41], "t": AT, "q": 10_064, "trfi": 202, "trft": AT - 5,
}  # fmt: skip
SECOND: dict[str, Any] = {
    "ev": "A", "sym": "AAPL", "v": 200, "av": 8_642_007, "op": 25.66, "vw": 25.3981, "o": 25.39,
    "c": 25.4, "h": 25.42, "l": 25.38, "a": 25.3714, "z": 50, "s": START, "e": START + 1_000,
}  # fmt: skip

NUMBERS = st.floats(0.0001, 1e9) | st.integers(1, 10**12)
CODES = st.integers(0, 999)
SHARES = st.integers(0, 10**9) | st.floats(0.001, 1e6).filter(lambda size: not size.is_integer())
TRADES = st.fixed_dictionaries(
    {
        "ev": st.just("T"), "sym": st.text("ABCDEFGHIJ.", min_size=1, max_size=6),
        "t": st.integers(0, 4 * 10**12), "q": st.integers(0, 2**63 - 1), "p": NUMBERS, "s": SHARES,
    },
    optional={
        "c": st.lists(CODES, max_size=4), "x": CODES, "i": st.text("0123456789", max_size=20),
        "z": st.integers(1, 3), "trfi": CODES, "trft": st.integers(0, 4 * 10**12),
    },
)  # fmt: skip


def parse(*events: Any) -> Frame:
    return parse_frame(json.dumps(events).encode(), NOW)


def test_an_event_becomes_a_trade() -> None:
    trade = Trade("AAPL", AT, 10_064, 150.25, 100, (14, 41), TRADE)
    assert parse(TRADE) == Frame(NOW, [], [], [trade], [], [], 0)
    assert parse(TRADE).has_data
    assert trade.venue == Venue(4, "12345", 3, 202, AT - 5)


def test_an_event_becomes_a_second() -> None:
    second = Second("AAPL", START, 25.39, 25.42, 25.38, 25.4, 200, 25.3981)
    assert parse(SECOND) == Frame(NOW, [], [second], [], [], [], 0)
    assert parse(SECOND).has_data


@unhurried
@given(st.lists(TRADES, max_size=8))
def test_sound_trades_come_out_to_the_last_digit(events: list[dict[str, Any]]) -> None:
    frame = parse_frame(orjson.dumps(events), NOW)
    assert not frame.refusals
    for trade, event in zip(frame.trades, events, strict=True):
        assert trade[:5] == tuple(event[name] for name in ("sym", "t", "q", "p", "s"))
        assert type(trade.size) is type(event["s"])
        assert trade.conditions == tuple(event.get("c", ()))
        assert trade.venue == tuple(event.get(name) for name in ("x", "i", "z", "trfi", "trft"))


def test_what_is_optional_may_be_missing_or_null() -> None:
    least = {name: TRADE[name] for name in ("ev", "sym", "p", "s", "t", "q")}
    nulls = {name: None for name in TRADE if name not in least}
    for event in (least, {**least, **nulls}):
        (trade,) = parse(event).trades
        assert trade[:6] == ("AAPL", AT, 10_064, 150.25, 100, ())
        assert trade.venue == Venue(None, None, None, None, None)
    del (bare := dict(SECOND))["vw"]
    assert parse(bare).seconds[0].vwap is None


@pytest.mark.parametrize(
    "strange",
    [{"x": "4", "z": 4.5, "trfi": -1, "i": 5, "trft": "now"},
     {"x": True, "z": [3], "trfi": 10**9, "i": "a\0", "trft": -1},
     {"x": {}, "z": None, "trfi": 1.0, "i": "x" * 65, "trft": 10**19}],
)  # fmt: skip
def test_a_strange_venue_costs_nobody_a_trade(strange: dict[str, Any]) -> None:
    (trade,) = parse({**TRADE, **strange}).trades
    assert trade.price == 150.25
    assert trade.venue == Venue(None, None, None, None, None)


def test_codes_may_be_written_as_floats() -> None:
    for codes in ([14.0, 41], [14, 41], [14.0, 41.0]):
        (trade,) = parse({**TRADE, "c": codes}).trades
        assert trade.conditions == (14, 41)
        assert {type(code) for code in trade.conditions} == {int}


@pytest.mark.parametrize(
    ("fields", "size"),
    [({"s": 12.0}, 12), ({"s": 0.5}, 0.5), ({"s": 0}, 0), ({"s": 3, "ds": "3.25"}, Decimal("3.25")),
     ({"s": 0, "ds": "0.001"}, Decimal("0.001")), ({"s": 7, "ds": "nonsense"}, 7)],
)  # fmt: skip
def test_sizes_may_be_fractional(fields: dict[str, Any], size: Any) -> None:
    found = parse({**TRADE, **fields}).trades[0].size
    assert (found, type(found)) == (size, type(size))


NO_NUMBERS: list[Any] = [-1, "1", True, None, []]
BAD_TRADES: list[tuple[dict[str, Any], str]] = [
    *[({k: v for k, v in TRADE.items() if k != name}, f"{name} is missing")
      for name in ("sym", "t", "q", "p", "s")],
    *[({**TRADE, "sym": bad}, "sym is not a ticker") for bad in ("", 5, "A\0B", "X" * 65, ["A"])],
    *[({**TRADE, name: bad}, f"{name} is no time or sequence number")
      for name in ("t", "q") for bad in (-1, 1.5, "1", True, 10**19)],
    ({**TRADE, "t": AT * 1_000_000}, "t is no time or sequence number"),
    *[({**TRADE, "p": bad}, "p is not a possible number") for bad in (0, *NO_NUMBERS)],
    *[({**TRADE, "s": bad}, "s is not a possible number") for bad in NO_NUMBERS],
    *[({**TRADE, "c": bad}, "c is no list of condition codes")
      for bad in (["14"], [14.5], [None], [-1], [1000], [[14]], [float("inf")], 14, "14")],
]  # fmt: skip
BAD_SECONDS: list[tuple[dict[str, Any], str]] = [
    ({**SECOND, "e": START + 60_000}, "e is not s + 1000: "),
    ({**SECOND, "s": START + 1, "e": None}, f"s is not on a whole second: {START + 1}"),
    ({**SECOND, "s": 10**18, "e": None}, f"s is out of the calendar: {10**18}"),
    ({**SECOND, "o": "NaN"}, "o is not a finite number"),
    ({"ev": "A"}, "sym is missing"),
]


@pytest.mark.parametrize(("event", "reason"), BAD_TRADES + BAD_SECONDS)
def test_a_bad_event_is_refused_with_its_reason_and_its_neighbours_stay(
    event: dict[str, Any], reason: str
) -> None:
    for _ in range(2):  # once more: nothing is remembered wrongly
        frame = parse(TRADE, event, SECOND)
        assert (len(frame.trades), len(frame.seconds)) == (1, 1)
        assert [refusal.reason[: len(reason)] for refusal in frame.refusals] == [reason]


@pytest.mark.parametrize(
    ("event", "meant"),
    [
        ({**TRADE, "p": 0, "t": START + 59_999}, [("AAPL", MINUTE)]),
        ({**SECOND, "o": "NaN", "s": START + 59_000}, [("AAPL", MINUTE)]),
        ({**TRADE, "t": "now"}, []),
        ({**TRADE, "sym": ""}, []),
        ({**TRADE, "t": 10**19}, []),
    ],
)
def test_of_what_is_refused_it_is_known_which_bar_it_is_missing_in(
    event: dict[str, Any], meant: list[tuple[str, datetime]]
) -> None:
    assert list(parse(event, TRADE, SECOND).broken) == meant


@unhurried
@given(
    st.sampled_from(sorted({*TRADE, *SECOND, "ds", "dv"} - {"ev"})),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
)
def test_any_value_in_any_field_is_accounted_for(field: str, value: Any) -> None:
    frame = parse({**TRADE, field: value}, {**SECOND, field: value}, {**TRADE, "sym": "GOOD"})
    assert frame.trades[-1].symbol == "GOOD"
    assert len(frame.trades) + len(frame.seconds) + len(frame.refusals) == 3
    for trade in frame.trades:
        assert [type(code) for code in trade.conditions] == [int] * len(trade.conditions)
        exchange, name, *rest = trade.venue
        assert {type(code) for code in (exchange, *rest)} <= {int, type(None)}
        assert name is None or name.isprintable()
