"""The file of symbols: what is subscribed follows it."""

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tickstock.ingest.symbols import SymbolsFile


def test_a_change_before_the_first_look_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest may wait for its database between the list that it begins with and its start."""
    monkeypatch.setattr("tickstock.ingest.symbols.LOOK_EVERY", 0.01)
    file = tmp_path / "symbols"
    file.write_text("A\nB\n")
    told: queue.Queue[Sequence[str]] = queue.Queue()
    stop = threading.Event()
    follower = SymbolsFile(file, ["A"], told.put, stop)
    follower.start()
    try:
        assert told.get(timeout=30) == ["A", "B"]
    finally:
        stop.set()
        follower.join()
