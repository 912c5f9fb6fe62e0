"""What can't be a bar is refused with its reason, and costs its neighbours nothing."""

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.feed.scripted_server import Peer, ScriptedServer
from tickstock.db.connection import fetch_value
from tickstock.db.writer import Counts
from tickstock.embedded.redis import embedded_redis

from .channel import Channel
from .hand_fed import Event, bar, hand_fed
from .program import KEY, running, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

FAR_FUTURE = 32_503_680_000_000
"""The year 3000, in ms."""

IMPOSSIBLE: list[tuple[Event, str]] = [
    (bar("TURNED", 0, h=9, l=11), "high 9 is below low 11"),
    (bar("LOWHIGH", 0, h=10.25), "high 10.25 is below open 10.5 or close 10.5"),
    (bar("HIGHLOW", 0, l=10.75), "low 10.75 is above open 10.5 or close 10.5"),
    (bar("MINUS", 0, v=-1), "volume -1 is negative"),
    (bar("CHEAP", 0, l=-0.01), "a price is negative"),
    (bar("VWAP", 0, vw=-1), "vwap -1 is not a price"),
    (bar("LATER", 0, s=FAR_FUTURE, e=FAR_FUTURE + 60_000), "is more than a day in the future"),
]
MALFORMED: list[tuple[Event, str]] = [
    (bar("NAN", 0, c=float("nan")), "c is not a finite number"),
    (bar("INFINITE", 0, h=float("inf")), "h is not a finite number"),
    (bar("TEXT", 0, o="10.5"), "o is not a finite number"),
    (bar("", 0), "sym is not a ticker"),
    (bar("HALF", 0, s=1_763_994_630_000), "e is not s + 60000"),
    ({"ev": "AM", "sym": "EMPTY"}, "s is missing"),
    ({"sym": "NOTHING"}, "not an event: no text in ev"),
]
GARBAGE = [
    (b'[{"ev":"AM","sym":"CUT","o":1', "the frame is not JSON"),
    (b"\xff\xfe\x00not text", "the frame is not JSON"),
    (b"42", "the frame is neither a JSON array nor an object"),
]


def test_the_rest_of_a_frame_is_stored_and_an_operator_sees_why(
    url: str, conn: Connection[TupleRow]
) -> None:
    refused = [*IMPOSSIBLE, *MALFORMED]
    sound = [bar(f"GOOD{number}", 0) for number in range(len(refused) + 1)]
    events = [sound[0]]
    for (event, _), neighbour in zip(refused, sound[1:], strict=True):
        events += [event, neighbour]
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        embedded_redis() as redis_url,
        Channel(redis_url, "tickstock_data") as channel,
        hand_fed() as feed,
        running(
            "ingest", "--symbols", "*", "--feed-url", feed.url, "--redis-url", redis_url, **settings
        ) as ingest,
    ):
        feed.send(*events)
        for frame, _ in GARBAGE:
            feed.send_raw(frame)
        feed.await_received()
        assert ingest.stop() == 0
        forwarded = [message["symbol"] for message in channel.await_messages(len(sound))]
    symbols = [event["sym"] for event in sound]
    assert forwarded == symbols
    stored = [row[0] for row in conn.execute("select symbol from ohlcv_1min")]
    assert sorted(stored) == sorted(symbols)
    number = len(refused) + len(GARBAGE)
    assert ingest.counts == Counts(
        received=len(sound) + number, inserted=len(sound), refused=number
    )
    _assert_reasons(conn)


def test_a_closing_that_no_text_can_hold_does_not_end_ingest(
    url: str, conn: Connection[TupleRow]
) -> None:
    def close(peer: Peer) -> None:
        peer.serve()
        peer.send([bar("FIRST", 0)])
        peer.close(1000, "good\0bye\x1b[2J")

    def go_on(peer: Peer) -> None:
        peer.serve()
        peer.send([bar("SECOND", 0)])
        peer.stay()

    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        ScriptedServer(close, go_on) as feed,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
    ):
        until(url, "select count(*) from ohlcv_1min", 2)
        assert ingest.stop() == 0
    reason = fetch_value(conn, "select reason from feed_stretches order by id limit 1")
    assert reason == r"closed by the feed: 1000 good\x00bye\x1b[2J"


def _assert_reasons(conn: Connection[TupleRow]) -> None:
    rows = conn.execute("select source, reason, payload from refused_bars").fetchall()
    assert {source for source, _, _ in rows} == {"feed"}
    assert len(rows) == len(IMPOSSIBLE) + len(MALFORMED) + len(GARBAGE)
    for event, why in [*IMPOSSIBLE, *MALFORMED]:
        name = f'"{event["sym"]}"' if "sym" in event else "NOTHING"
        fitting = [reason for _, reason, payload in rows if name in payload]
        assert len(fitting) == 1, (name, rows)
        assert why in fitting[0]
    for frame, why in GARBAGE:
        head = frame.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        (reason,) = [reason for _, reason, payload in rows if payload == head]
        assert reason.startswith(why)
