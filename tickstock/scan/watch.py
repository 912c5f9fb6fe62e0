"""Telling which pattern in Python holds a scanner up: it can't be stopped safely, but it can be named."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tickstock.patterns.evaluate import ASKING, Asking

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between looks."""


@contextmanager
def telling_of_slow_patterns(seconds: float) -> Iterator[None]:
    """While the block runs, a pattern that takes longer for one answer is named, once for each answer."""
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(seconds, done), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(seconds: float, done: threading.Event) -> None:
    told: set[tuple[int, Asking]] = set()
    while not done.wait(min(EVERY, seconds)):
        asking = ASKING.copy()
        told &= set(asking.items())
        for thread, each in asking.items():
            took = time.monotonic() - each.since
            if took > seconds and (thread, each) not in told:
                told.add((thread, each))
                log.warning(
                    "pattern %s on %s candles has not answered for %.0f s%s. It holds this program up, "
                    "and can't be stopped without it: if it never ends, kill the program, and correct "
                    "the pattern",
                    *(each.pattern, each.timeframe, took, _place(thread)),
                )


def _place(thread: int) -> str:
    """Where it is at the moment."""
    frame = sys._current_frames().get(thread)
    return f", at {frame.f_code.co_filename}, line {frame.f_lineno}" if frame else ""
