"""Batches of the inbox: in its order, never beyond what tells of the connection, and not without bound."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from tickstock.feed.frames import Frame
from tickstock.ingest.gathering import BATCH, Batch, Gatherer
from tickstock.ingest.inbox import Inbox, Item, Kind
from tickstock.ingest.making import Making

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
EVENT = {"ev": "AM", "s": 1_763_994_600_000, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}


def frame(*symbols: str) -> Item:
    return Item(Kind.FRAME, START, orjson.dumps([{**EVENT, "sym": symbol} for symbol in symbols]))


@contextmanager
def gathering(inbox: Inbox, making: Making | None = None) -> Iterator[Gatherer]:
    gatherer = Gatherer(inbox, making or Making())
    gatherer.start()
    try:
        yield gatherer
    finally:
        gatherer.stop()
        gatherer.join()


def take(gatherer: Gatherer, items: int) -> list[Batch]:
    """Batches of so many items in all."""
    batches: list[Batch] = []
    while sum(batch.items for batch in batches) < items:
        batches.append(gatherer.take(timeout=30))
        assert batches[-1].items
    return batches


def test_what_tells_of_the_connection_ends_a_batch(tmp_path: Path) -> None:
    lost = Item(Kind.LOST, START, b"cut")
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox) as gatherer:
        for item in (frame("A"), frame("B"), lost, frame("C"), lost):
            inbox.put(item)
        told: list[str | None] = []
        for batch in take(gatherer, 5):
            told += [bar.symbol for bar in batch.made.bars]
            told += [None] if batch.told else []
        assert told == ["A", "B", None, "C", None]
        assert not inbox.done
        inbox.stored(5)
        assert inbox.done


def test_what_is_no_bar_fills_a_batch_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the inbox, which spills, would be emptied into a batch that grows without bound."""
    monkeypatch.setattr("tickstock.ingest.gathering.BATCH", 10)
    quote = Item(Kind.FRAME, START, b'[{"ev":"Q","sym":"A"}]')
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox) as gatherer:
        for _ in range(100):
            inbox.put(quote)
        batches = take(gatherer, 100)
        assert max(batch.items for batch in batches) <= 10
        assert gatherer.ignored == 100


def test_a_batch_that_is_full_leaves_the_rest_in_the_inbox(tmp_path: Path) -> None:
    large = frame(*(f"S{number}" for number in range(BATCH)))
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox) as gatherer:
        for item in (large, large, large):
            inbox.put(item)
        assert [len(batch.made.bars) for batch in take(gatherer, 3)] == 3 * [BATCH]


def test_nothing_came(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox) as gatherer:
        assert gatherer.take(timeout=0).items == 0


class Hearing(Making):
    """What it is told, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def add(self, frame: Frame) -> None:
        super().add(frame)
        self.heard.append(frame.bars[0].symbol)

    def subscribed(self, symbols: Sequence[str] | None) -> None:
        self.heard.append(("subscribed", symbols))

    def changed(self, symbols: Sequence[str] | None) -> None:
        self.heard.append(("changed", symbols))

    def lost(self) -> None:
        self.heard.append("lost")


def test_bars_are_made_by_what_tells_of_the_connection(tmp_path: Path) -> None:
    """Each in its place: which minutes were seen in part follows from it."""
    making = Hearing()
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox, making) as gatherer:
        for item in (
            Item(Kind.OPENED, START, b'["A"]'),
            frame("A"),
            Item(Kind.CHANGED, START, b"null"),
            frame("B"),
            Item(Kind.LOST, START, b"cut"),
        ):
            inbox.put(item)
        take(gatherer, 5)
        inbox.stored(5)
    assert making.heard == [("subscribed", ["A"]), "A", ("changed", None), "B", "lost"]


class Broken(Making):
    def add(self, frame: object) -> None:  # noqa: ARG002
        raise ArithmeticError("a mistake of ours")


def test_a_mistake_of_ours_is_not_swallowed(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed") as inbox, gathering(inbox, Broken()) as gatherer:
        inbox.put(frame("A"))
        with pytest.raises(ArithmeticError, match="a mistake of ours"):
            gatherer.take(timeout=30)
        inbox.stored(1)
