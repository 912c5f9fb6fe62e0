"""What waits for the database: in memory, beyond it in a file, in order, across a kill."""

import resource
import shutil
import signal
import tempfile
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tickstock.ingest.inbox import _HEAD, OVERHEAD, Inbox, Item, Kind

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
MEMORY = 4 * OVERHEAD
LARGEST = 600

items = st.builds(
    Item,
    st.sampled_from(Kind),
    st.integers(0, 10**12).map(lambda us: START + timedelta(microseconds=us)),
    st.binary(max_size=LARGEST),
)


class Known(NamedTuple):
    item: Item
    in_file: bool


class Waiting(RuleBasedStateMachine):
    """Puts, takes, kills and orderly ends in any order, against a plain queue."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.inbox = Inbox(self.folder, "feed", memory=MEMORY)
        self.waiting: deque[Known] = deque()
        self.unstored: list[Known] = []

    @rule(batch=st.lists(items, min_size=1, max_size=5))
    def put(self, batch: list[Item]) -> None:
        for item in batch:
            before = self.inbox.waiting
            assert self.inbox.put(item)
            self.waiting.append(Known(item, in_file=self.inbox.waiting == before))

    @rule(number=st.integers(1, 6))
    def take(self, number: int) -> None:
        for _ in range(number):
            known = self.waiting.popleft() if self.waiting else None
            assert self.inbox.take(0) == (known and known.item)
            if known:
                self.unstored.append(known)

    @rule(number=st.integers(1, 6))
    def stored(self, number: int) -> None:
        """What was taken first is stored first; the rest may be on its way."""
        number = min(number, len(self.unstored))
        self.inbox.stored(number)
        del self.unstored[:number]

    @rule()
    def end_in_order(self) -> None:
        """All that is not stored is there for the next one, in order."""
        everything = [*self.unstored, *self.waiting]
        assert bool(self.inbox.keep()) == bool(everything)
        self.inbox.close()
        self._begin_again(everything)

    @rule()
    def end_by_kill(self) -> None:
        """What went to the file and is not stored comes again; what was in memory alone is gone."""
        self.inbox._lock.close()  # as the kernel does for a process that is gone
        in_file = [known for known in (*self.unstored, *self.waiting) if known.in_file]
        self.inbox = Inbox(self.folder, "feed", memory=MEMORY)
        found = []
        while item := self.inbox.take(0):
            found.append(item)
        assert found[len(found) - len(in_file) :] == [known.item for known in in_file]
        self.inbox.stored(len(found))
        self.waiting.clear()
        self.unstored.clear()

    @precondition(lambda self: not self.waiting)
    @rule()
    def nothing_is_left_behind(self) -> None:
        self.inbox.stored(len(self.unstored))
        assert self.inbox.done
        self.inbox.close()
        assert not list(self.folder.glob("*.frames"))
        self._begin_again([])

    @invariant()
    def memory_is_bounded(self) -> None:
        # The last item may go beyond the bound.
        assert self.inbox._bytes <= MEMORY + OVERHEAD + LARGEST
        assert self.inbox.empty == (not self.waiting)
        assert self.inbox.done == (not self.waiting and not self.unstored)

    @invariant()
    def it_is_known_what_is_behind(self) -> None:
        for number in (0, len(self.unstored) // 2, len(self.unstored)):
            rest = [*self.unstored[number:], *self.waiting]
            in_file = [_HEAD.size + len(known.item.data) for known in rest if known.in_file]
            in_memory = len(self.unstored) - number + self.inbox.waiting
            assert self.inbox.behind(number) == (in_memory, sum(in_file))

    def _begin_again(self, there: list[Known]) -> None:
        self.inbox = Inbox(self.folder, "feed", memory=MEMORY)
        self.waiting = deque(known._replace(in_file=True) for known in there)
        self.unstored.clear()

    def teardown(self) -> None:
        self.inbox.close()
        shutil.rmtree(self.folder)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def item(data: bytes) -> Item:
    return Item(Kind.FRAME, START, data)


def test_two_processes_use_two_files(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed", memory=1) as one, Inbox(tmp_path, "feed", memory=1) as other:
        for inbox, data in ((one, b"1"), (other, b"2")):
            inbox.put(item(data))  # memory
            inbox.put(item(data))  # file
        assert [one.take(0), one.take(0)] == 2 * [item(b"1")]
        assert [other.take(0), other.take(0)] == 2 * [item(b"2")]


def test_a_record_broken_by_a_kill_is_left_out(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, "feed", memory=1)
    for data in (b"memory", b"whole", b"broken"):
        inbox.put(item(data))
    inbox.close()
    (file,) = tmp_path.glob("*.frames")
    file.write_bytes(file.read_bytes()[:-1])
    with Inbox(tmp_path, "feed") as again:
        assert again.take(0) == item(b"whole")
        assert again.take(0) is None


def test_a_full_disk_is_told_and_what_comes_later_is_taken(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Inbox(tmp_path, "feed", memory=1) as inbox:
        assert inbox.put(item(b"memory"))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            taken = [inbox.put(item(60 * b"x")) for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert taken == [True, False, False]
        assert inbox.lost == 2
        assert inbox.put(item(b"later"))
        assert [inbox.take(0) for _ in range(4)] == [
            item(b"memory"),
            item(60 * b"x"),
            item(b"later"),
            None,
        ]
