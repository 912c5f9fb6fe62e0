"""The file of symbols: what is subscribed follows it while ingest runs."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tickstock.errors import TickstockError

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks at the file."""


def read_symbols(path: Path) -> list[str]:
    """The tickers in a file, a line each (or several, separated by commas); # begins a comment.

    Raises TickstockError for a file that can't be read, or names none.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TickstockError(f"--symbols-file {path} can't be read: {error}") from None
    words = [word.strip() for line in lines for word in line.partition("#")[0].split(",")]
    symbols = list(dict.fromkeys(word for word in words if word))
    if not symbols:
        raise TickstockError(f"--symbols-file {path} names no ticker; put one on each line")
    return symbols


class SymbolsFile(threading.Thread):
    """Tells `changed` what is in the file whenever that has changed, at first from what is `known` of it.
    A broken file changes nothing.
    """

    def __init__(
        self,
        path: Path,
        known: Sequence[str],
        changed: Callable[[Sequence[str]], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(name="symbols", daemon=True)
        self._path = path
        self._changed = changed
        self._stop_event = stop
        self._known = list(known)
        self._trouble = ""

    def run(self) -> None:
        while not self._stop_event.wait(LOOK_EVERY):
            try:
                symbols = read_symbols(self._path)
                if symbols != self._known:
                    self._changed(symbols)
                    self._known = symbols
                self._trouble = ""
            except TickstockError as error:
                if error.message != self._trouble:
                    log.warning("the symbols stay as they are: %s", error.message)
                self._trouble = error.message
