import json
import math
import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickstock.bars import PAYLOAD_LIMIT, Bar
from tickstock.feed.frames import Frame, parse_frame
from tickstock.feed.protocol import Status

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
START = 1_755_932_400_000

# The first text that hypothesis draws on a machine takes seconds; nothing here is about time.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

EVENT: dict[str, Any] = {
    "ev": "AM", "sym": "AAPL", "v": 10_000, "av": 9_470_157, "op": 149.5, "vw": 150.4, "o": 150.0,
    "c": 150.9, "h": 151.2, "l": 149.8, "a": 150.1, "z": 12.0, "s": START, "e": START + 60_000,
}  # fmt: skip

PRICES = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
MINUTES = st.integers(-1_000_000_000, 4_000_000_000).map(lambda minute: minute * 60_000)
TICKERS = st.text(string.ascii_letters + string.digits + "./:-", min_size=1, max_size=21)
AM_EVENTS = st.fixed_dictionaries(
    {
        "ev": st.just("AM"), "sym": TICKERS, "s": MINUTES,
        "o": PRICES, "h": PRICES, "l": PRICES, "c": PRICES, "v": PRICES,
    },
    optional={"vw": PRICES | st.none(), "z": PRICES, "otc": st.booleans(), "dav": st.text()},
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def parse(*events: Any) -> Frame:
    return parse_frame(json.dumps(events).encode(), NOW)


def total(frame: Frame) -> int:
    data = len(frame.bars) + len(frame.seconds) + len(frame.trades)
    return data + len(frame.statuses) + len(frame.refusals) + frame.ignored


def check_sound(frame: Frame) -> None:
    """Whatever came in, what comes out can be written to the database."""
    assert frame.received_at is NOW
    for bar in frame.bars:
        assert bar.ts.tzinfo is UTC
        assert (bar.ts.second, bar.ts.microsecond) == (0, 0)
        assert 0 < len(bar.symbol) <= 64
        assert "\0" not in bar.symbol
        bar.symbol.encode()
        for number in (*bar[2:7], bar.vwap or 0):
            assert type(number) in (int, float, Decimal)
            assert math.isfinite(number)
        assert bar.trades is None
    for refusal in frame.refusals:
        assert refusal.source == "feed"
        assert refusal.reason
        assert 0 <= len(refusal.payload) <= PAYLOAD_LIMIT
        assert "\0" not in refusal.reason + refusal.payload
        (refusal.reason + refusal.payload).encode()


def test_an_event_becomes_a_bar() -> None:
    frame = parse(EVENT)
    ts = datetime(2025, 8, 23, 7, 0, tzinfo=UTC)
    bar = Bar("AAPL", ts, 150.0, 151.2, 149.8, 150.9, 10_000, 150.4, None)
    assert frame == Frame(NOW, [bar], [], [], [], [], 0)


@unhurried
@given(st.lists(AM_EVENTS, max_size=8))
def test_sound_events_become_bars_to_the_last_digit(events: list[dict[str, Any]]) -> None:
    frame = parse_frame(orjson.dumps(events), NOW)
    assert not frame.refusals
    assert frame == parse_frame(orjson.dumps(events).decode(), NOW)
    for bar, event in zip(frame.bars, events, strict=True):
        assert bar.symbol == event["sym"]
        assert (bar.ts - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1) == event["s"]
        assert bar[2:6] == (event["o"], event["h"], event["l"], event["c"])
        assert (bar.volume, bar.vwap) == (event["v"], event.get("vw"))
    check_sound(frame)


@unhurried
@given(JSON)
def test_any_json_is_accounted_for(document: Any) -> None:
    frame = parse_frame(json.dumps(document), NOW)
    check_sound(frame)
    assert total(frame) == (len(document) if isinstance(document, list) else 1)


@unhurried
@given(st.binary() | st.text())
def test_any_bytes_are_survived(data: bytes | str) -> None:
    check_sound(parse_frame(data, NOW))


@unhurried
@given(st.lists(AM_EVENTS, min_size=1, max_size=3), st.data())
def test_a_damaged_frame_is_survived(events: list[dict[str, Any]], data: st.DataObject) -> None:
    frame = bytearray(orjson.dumps(events))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(frame)))
        frame[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_sound(parse_frame(bytes(frame), NOW))


@unhurried
@given(st.sampled_from(sorted({*EVENT, "dv"})), JSON)
def test_any_value_in_any_field_gives_a_bar_or_a_refusal_that_names_the_field(
    field: str, value: Any
) -> None:
    frame = parse({**EVENT, field: value}, {**EVENT, "sym": "GOOD"})
    check_sound(frame)
    assert total(frame) == 2
    assert frame.bars[-1].symbol == "GOOD"
    for refusal in frame.refusals:
        wrong = {"s": ("s ", "e "), "ev": ("not an event", "status event")}.get(
            field, (f"{field} ",)
        )
        assert refusal.reason.startswith(wrong)


NO_NUMBERS: list[Any] = [
    "NaN", None, True, "1.5", [1], {}, float("nan"), float("inf"), -float("inf"),
]  # fmt: skip
NO_ENDS: list[Any] = [START, START + 1000, START + 60_001, "x", True, []]
BAD: list[tuple[Any, str]] = [
    *[({**EVENT, name: bad}, f"{name} is not a finite number") for name in ("o", "h", "l", "c", "v")
      for bad in NO_NUMBERS],
    *[({k: v for k, v in EVENT.items() if k != name}, f"{name} is missing")
      for name in ("sym", "s", "o", "h", "l", "c", "v")],
    *[({**EVENT, "sym": bad}, "sym is not a ticker: ")
      for bad in ("", None, 5, "A\0B", "A\nB", "\ud800", "X" * 65, ["A"])],
    *[({**EVENT, "s": bad}, "s is not a whole number of milliseconds: ")
      for bad in (None, True, str(START), float(START), 10**30)],
    ({**EVENT, "s": START + 1, "e": START + 60_001}, f"s is not on a whole minute: {START + 1}"),
    ({**EVENT, "s": 60_000 * 10**13, "e": None}, f"s is out of the calendar: {60_000 * 10**13}"),
    ({**EVENT, "s": -60_000 * 10**13, "e": None}, f"s is out of the calendar: -{60_000 * 10**13}"),
    *[({**EVENT, "e": bad}, "e is not s + 60000: ")
      for bad in NO_ENDS],
    ({**EVENT, "vw": "NaN"}, 'vw is not a finite number: "NaN"'),
    ({"ev": "status"}, "status event without a text in status or message"),
    ({"ev": "status", "status": "success", "message": 5}, "status event without a text"),
    *[(bad, "not an event: no text in ev") for bad in (None, 1, "AM", [], [EVENT], {}, {"ev": 1})],
]  # fmt: skip


@pytest.mark.parametrize(("event", "reason"), BAD)
def test_a_bad_event_is_refused_with_its_reason_and_its_neighbours_stay(
    event: Any, reason: str
) -> None:
    frame = parse(EVENT, event, {**EVENT, "sym": "TSLA"})
    assert [bar.symbol for bar in frame.bars] == ["AAPL", "TSLA"]
    assert [refusal.reason[: len(reason)] for refusal in frame.refusals] == [reason]
    check_sound(frame)


def test_a_broken_character_costs_only_its_own_event() -> None:
    data = json.dumps([EVENT, {**EVENT, "sym": "B@D"}, EVENT]).encode().replace(b"@", b"\xff")
    frame = parse_frame(data, NOW)
    assert len(frame.bars) == 2
    assert [refusal.reason[:19] for refusal in frame.refusals] == ["sym is not a ticker"]
    check_sound(frame)


def test_number_too_large_for_a_float_costs_only_its_own_event() -> None:
    data = json.dumps([EVENT, {**EVENT, "o": 424242}]).encode()
    for huge in (b"1e400", b"9" * 400, b"9" * 5000):
        frame = parse_frame(data.replace(b"424242", huge), NOW)
        assert len(frame.bars) == 1
        assert frame.refusals[0].reason.startswith("o is not a finite number")
        check_sound(frame)


@pytest.mark.parametrize(
    "data", [b"", b"[", b"garbage", b"\xff\xfe", b"[1,]", "\ud800", b"[" * 5000, b'{"a":' * 5000]
)
def test_garbage_is_one_refusal_that_keeps_it(data: bytes | str) -> None:
    frame = parse_frame(data, NOW)
    assert total(frame) == len(frame.refusals) == 1
    assert frame.refusals[0].reason.startswith("the frame is not JSON: ")
    check_sound(frame)


@pytest.mark.parametrize("data", [b"5", b"null", b'"text"', b"true", b"NaN"])
def test_json_that_holds_no_events_is_one_refusal(data: bytes) -> None:
    frame = parse_frame(data, NOW)
    assert [refusal.reason for refusal in frame.refusals] == [
        "the frame is neither a JSON array nor an object"
    ]
    assert frame.refusals[0].payload == data.decode()


def test_long_and_deep_inputs_are_shortened() -> None:
    frame = parse({"ev": "AM", "sym": "x" * 10_000}, EVENT)
    assert len(frame.refusals[0].payload) == PAYLOAD_LIMIT
    assert frame.refusals[0].payload.endswith("…")
    assert len(frame.bars) == 1
    check_sound(frame)
    long = parse_frame("é" * 10_000 + "\0", NOW).refusals[0].payload
    assert long == "é" * (PAYLOAD_LIMIT - 1) + "…"


@pytest.mark.parametrize("depth", [100, 900, 990, 1000, 1010, 1100, 100_000])
def test_depth_is_survived(depth: int) -> None:
    event = json.dumps({**EVENT, "o": 424242}).replace("424242", "[" * depth + "]" * depth)
    frame = parse_frame(f"[{json.dumps(EVENT)}, {event}]", NOW)
    assert len(frame.refusals) == 1
    assert frame.refusals[0].reason.startswith(("o is not a finite number", "the frame is not"))
    check_sound(frame)


def test_a_bare_object_is_one_event_and_other_types_are_counted() -> None:
    assert len(parse_frame(json.dumps(EVENT), NOW).bars) == 1
    frame = parse({"ev": "Q", "sym": "A"}, {"ev": "LULD"}, EVENT, {"ev": "status", "status": "x"})
    assert (len(frame.bars), frame.ignored, frame.statuses) == (1, 2, [Status("x", "")])


@pytest.mark.parametrize(
    ("fields", "volume"),
    [
        ({"v": 100}, 100), ({"v": 100.0}, 100), ({"v": 100.5}, 100.5), ({"v": -5}, -5),
        ({"v": 1e300}, 1e300), ({"v": 100, "dv": "100.25"}, Decimal("100.25")),
        ({"v": 100, "dv": "100.50"}, Decimal("100.50")), ({"v": 1, "dv": "100"}, 100),
        ({"v": 1, "dv": "-7.00"}, -7), ({"v": 3, "dv": "-0.5"}, Decimal("-0.5")),
        *[({"v": 3, "dv": bad}, 3) for bad in ("NaN", "1e5", "", "1_0", "٣", "9" * 99, 4.5, None)],
    ],
)  # fmt: skip
def test_volume(fields: dict[str, Any], volume: Any) -> None:
    found = parse({**EVENT, **fields}).bars[0].volume
    assert (found, type(found)) == (volume, type(volume))


def test_values_that_make_no_sense_are_left_to_the_database() -> None:
    odd = {**EVENT, "h": 1, "l": 2, "v": -5, "s": 60_000 * 10**9, "e": 60_000 * 10**9 + 60_000}
    assert parse(odd).bars[0].ts.year == 3871
