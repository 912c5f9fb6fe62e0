"""What waits for the database: in memory, beyond it in a file, in order, across a kill."""

import os
import resource
import shutil
import signal
import tempfile
import threading
import tracemalloc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tickstock.errors import TickstockError
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


def test_who_waits_for_an_item_has_it_at_once(tmp_path: Path) -> None:
    found: list[Item | None] = []
    with Inbox(tmp_path, "feed") as inbox:
        taker = threading.Thread(target=lambda: found.append(inbox.take(60)), daemon=True)
        taker.start()
        inbox.put(item(b"1"))
        taker.join(timeout=30)
        assert found == [item(b"1")]
        inbox.stored(1)


def test_two_processes_use_two_files(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed", memory=1) as one, Inbox(tmp_path, "feed", memory=1) as other:
        for inbox, data in ((one, b"1"), (other, b"2")):
            inbox.put(item(data))  # memory
            inbox.put(item(data))  # file
        assert [one.take(0), one.take(0)] == 2 * [item(b"1")]
        assert [other.take(0), other.take(0)] == 2 * [item(b"2")]


def test_what_others_left_is_taken_over(tmp_path: Path) -> None:
    """Two ran side by side, and only one is started again."""
    with Inbox(tmp_path, "feed") as one, Inbox(tmp_path, "feed") as other:
        one.put(item(b"1"))
        other.put(item(b"2"))
        kept = [one.keep(), other.keep()]
    assert None not in kept
    os.utime(tmp_path / "feed-1.frames", (2**31, 2**31))  # it was written last
    (tmp_path / "feed-2.frames").open("ab").write(b"broken")
    with Inbox(tmp_path, "another") as inbox:
        assert inbox.take(0) is None
    for _ in range(2):  # the first one stores nothing
        with Inbox(tmp_path, "feed") as again, Inbox(tmp_path, "feed") as beside:
            taken = list(iter(lambda: again.take(0), None))
            assert [each.data for each in taken if each.kind is Kind.FRAME] == [b"2", b"1"]
            assert beside.take(0) is None


def test_a_file_that_only_a_second_ingest_left_is_taken_over(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed"):
        second = Inbox(tmp_path, "feed", memory=0)
        second.put(item(b"2"))
        second._lock.close()  # as the kernel does for a process that is gone
    with Inbox(tmp_path, "feed") as again:
        assert again.take(0) == item(b"2")
        assert again.take(0) is not None  # what breaks the ledger's stretch
        again.stored(2)
    assert {file.suffix for file in tmp_path.iterdir()} == {".lock"}


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


def test_what_is_left_of_a_broken_record_is_no_other_one(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, "feed", memory=0)
    inbox.put(item(_HEAD.pack(200, 0, 0) + b"a long frame, of which the end is broken off"))
    inbox.close()
    (file,) = tmp_path.glob("*.frames")
    file.write_bytes(file.read_bytes()[:-1])
    again = Inbox(tmp_path, "feed", memory=0)
    again.put(item(b""))
    again._lock.close()  # as the kernel does for a process that is gone
    with Inbox(tmp_path, "feed") as last:
        assert [last.take(0), last.take(0)] == [item(b""), None]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can have more than 100 bytes for the length of the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_at_the_end_costs_nothing_that_is_in_the_file(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed", memory=1) as inbox:
        assert inbox.put(item(60 * b"m"))
        assert inbox.put(item(60 * b"f"))
        with full_disk(), pytest.raises(OSError, match="File too large"):
            inbox.keep()
    with Inbox(tmp_path, "feed") as again:
        assert [again.take(0), again.take(0)] == [item(60 * b"f"), None]
        again.stored(1)
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_what_a_kill_left_of_keeping_is_removed(tmp_path: Path) -> None:
    (tmp_path / "feed-1.new").write_bytes(b"half a file")
    Inbox(tmp_path, "feed").close()
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_a_large_file_is_kept_in_little_memory(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed", memory=1) as inbox:
        for number in range(200):
            assert inbox.put(item(b"%d" % number + 100_000 * b"x"))
        tracemalloc.start()
        try:
            assert inbox.keep()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2_000_000
    with Inbox(tmp_path, "feed") as again:
        for number in range(200):
            assert again.take(0) == item(b"%d" % number + 100_000 * b"x")
        again.stored(200)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_server_of_root_can_pass_through_the_folder_above(tmp_path: Path) -> None:
    """The embedded server's data is beside it, and its account is another one."""
    before = os.umask(0o077)
    try:
        with Inbox(tmp_path / "data/spill", "feed"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "data/spill").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TickstockError, match=r"spill can't be used.*set TICKSTOCK_DATA_DIR"):
        Inbox(tmp_path / "file" / "spill", "feed")


def test_a_full_disk_is_told_and_what_comes_later_is_taken(tmp_path: Path) -> None:
    with Inbox(tmp_path, "feed", memory=1) as inbox:
        assert inbox.put(item(b"memory"))
        with full_disk():
            taken = [inbox.put(item(60 * b"x")) for _ in range(3)]
        assert taken == [True, False, False]
        assert inbox.lost == 2
        (file,) = tmp_path.glob("*.frames")
        assert file.stat().st_size == inbox.spilled  # nothing of those that it could not hold
        assert inbox.put(item(b"later"))
        assert [inbox.take(0) for _ in range(4)] == [
            item(b"memory"),
            item(60 * b"x"),
            item(b"later"),
            None,
        ]
