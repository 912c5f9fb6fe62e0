"""What can go wrong between a feed and its client, on demand and reproducibly.

A fault strikes at a rate, or when a test orders it. Whether it strikes depends on the seed and on
what it strikes (the minute and the client's number, the bar, the request), not on the real time, so
the same market, subscriptions and seed see the same faults.

No fault changes the truth, which is the market's and what REST tells. To get there, a client must
fill by REST what it missed, and know what it can't see from the stream:

- a bar may be late, or be replaced, up to `LATEST` minutes after it was due; when the connection is
  lost in between, the minutes before the cut are as doubtful as those after it;
- a `gap` leaves no trace in the stream at all.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from tickstock.errors import TickstockError
from tickstock.simulator.events import Event, Frame

LATEST = 15
"""Minutes after its own in which a late or corrected bar is sent, at most."""

STREAM_FAULTS = {
    "duplicate": "a bar, second or trade is sent again, at once or minutes later",
    "late": f"a bar, second or trade is sent 1 to {LATEST} minutes late",
    "out_of_order": "it is sent among those of the next minute",
    "corrected": "a bar or second is sent with wrong numbers, and with the right ones"
    f" 1 to {LATEST} minutes later",
    "gap": "a bar, second or trade is never sent",
}
"""Each strikes a single event, at most one of them."""

CONNECTION_FAULTS = {
    "drop": "the connection ends without notice, in the middle of a minute",
    "silence": "nothing is sent any more; pings are answered",
    "half_open": "nothing is sent any more, and no ping is answered; TCP stays open",
    "slow_consumer": "the client is cut off as too slow, close code 1008",
    "slow_consumer_1011": "the client is cut off as too slow, close code 1011 and no status before",
    "max_connections_old": "the client is cut off as if a newer one used its key, close code 1008",
}
"""Each strikes a client in a minute, at most one of them."""

OTHER_FAULTS = {
    "max_connections_new": "the client is cut off after its subscription as one too many, close code 1008",
    "garbage": "a message that cannot be parsed comes among a minute's bars",
    "rest_429": "REST says that there were too many requests",
    "rest_5xx": "REST answers 500, 502, 503 or 504",
    "rest_403": "REST says that the plan does not include the market's state",
    "rest_cut": "REST's connection ends before the answer, or within it",
    "rest_null": "REST says `results: null` instead of leaving it out where there is nothing",
}

FAULTS = {**STREAM_FAULTS, **CONNECTION_FAULTS, **OTHER_FAULTS}
"""Every fault, and what happens."""

_LATE_DUPLICATES = 3  # minutes, at most


class Faults:
    """Decides what goes wrong. `rates`: the probability of each fault, 0 to 1; others never strike.

    `rates` may be changed at any time. Raises TickstockError for an unknown fault or a rate beyond
    0 and 1.
    """

    def __init__(self, rates: Mapping[str, float] | None = None, *, seed: int = 0) -> None:
        for name, rate in (rates or {}).items():
            check(name)
            if not 0 <= rate <= 1:
                raise TickstockError(f"{name}={rate}: the rate of a fault is from 0 to 1")
        self.rates = dict(rates or {})
        self.counts: Counter[str] = Counter()
        """How often each has struck."""
        self._seed = seed
        self._ordered: Counter[str] = Counter()
        self._minute = self._calls = 0
        self._due: dict[int, list[Event]] = {}
        self._swapped: list[Event] = []

    @property
    def active(self) -> bool:
        """Whether anything can go wrong at the moment."""
        return any(self.rates.values()) or self._ordered.total() > 0

    def order(self, fault: str, times: int = 1) -> None:
        """Let it strike at the next so many opportunities."""
        check(fault)
        self._ordered[fault] += times

    def calm(self) -> None:
        """From now on nothing new goes wrong; what is late still comes."""
        self.rates.clear()
        self._ordered.clear()

    def strikes(self, fault: str, *occasion: object) -> bool:
        """Whether it strikes on this occasion, and count it if so."""
        rate = self.rates.get(fault, 0.0)
        struck = self._is_ordered(fault) or (rate > 0 and self.chance(fault, *occasion) < rate)
        if struck:
            self.counts[fault] += 1
        return struck

    def chance(self, *occasion: object) -> float:
        """A number from 0 to 1 that is always the same for the same occasion."""
        return self._random(*occasion).random()

    def ends(self, *occasion: object) -> str | None:
        """The fault that ends the connection on this occasion, if one does."""
        return next((name for name in CONNECTION_FAULTS if self.strikes(name, *occasion)), None)

    def disturb(self, events: Sequence[Event], *, last: bool) -> list[Event]:
        """What is sent in place of these events of the current minute; `last`: it ends with them."""
        swapped, self._swapped = self._swapped, []
        due = self._due.pop(self._minute, [])
        minute, self._minute = self._minute, self._minute + last
        if not self.active and not swapped:
            return [*events, *due]
        rates = [(name, self.rates.get(name, 0.0)) for name in STREAM_FAULTS]
        self._calls += 1
        random = self._random("stream", self._calls)
        sent: list[Event] = []
        for event in events:
            fault = self._fate(event, rates, random.random())
            sent += [event] if fault is None else self._suffer(fault, event, minute, random)
        for event in swapped:
            sent.insert(int(random.random() * (len(sent) + 1)), event)
        return [*sent, *due]

    def remains(self) -> list[Event]:
        """All that is still to come, when the market has ended."""
        held = [event for minute in sorted(self._due) for event in self._due[minute]]
        rest, self._swapped, self._due = [*self._swapped, *held], [], {}
        return rest

    def garbage(self, *occasion: object) -> Frame | None:
        """A message to send among others, if this fault strikes."""
        if not self.strikes("garbage", *occasion):
            return None
        return Frame(GARBAGE[int(self.chance("garbage", "which", *occasion) * len(GARBAGE))])

    def _fate(self, event: Event, rates: Sequence[tuple[str, float]], chance: float) -> str | None:
        for name, rate in rates:
            if self._is_ordered(name) or chance < rate:
                if name == "corrected" and event.fields["ev"] == "T":
                    return None  # the feed does not correct trades
                self.counts[name] += 1
                return name
            chance -= rate
        return None

    def _suffer(self, fault: str, event: Event, minute: int, random: Random) -> Iterator[Event]:
        """What is sent now of an event that this fault has struck; the rest of it comes later."""
        if fault == "out_of_order":
            self._swapped.append(event)
        elif fault in ("late", "corrected"):
            later = minute + 1 + int(random.random() * LATEST)
            self._due.setdefault(later, []).append(event)
            if fault == "corrected":
                yield wrong(event)
        elif fault == "duplicate":
            yield event
            later = minute + int(random.random() * (_LATE_DUPLICATES + 1))
            if later == minute:
                yield event
            else:
                self._due.setdefault(later, []).append(event)

    def _is_ordered(self, fault: str) -> bool:
        ordered = self._ordered[fault] > 0
        self._ordered[fault] -= ordered
        return ordered

    def _random(self, *occasion: object) -> Random:
        return Random(f"{self._seed} {occasion}")  # noqa: S311


def check(fault: str) -> None:
    """Raises TickstockError for a fault that there is not."""
    if fault not in FAULTS:
        raise TickstockError(f"{fault}: no such fault; there are {', '.join(FAULTS)}")


def wrong(event: Event) -> Event:
    """A bar or second as it is before its correction: sound in itself, and not the truth."""
    fields = {**event.fields, "c": event.fields["h"], "v": event.fields["v"] + 100}
    bar = event.bar and event.bar._replace(close=fields["c"], volume=fields["v"])
    return Event(fields, bar)


_BAR = b'"sym":"GARBAGE","o":1,"h":2,"l":1,"c":2,"v":100'
GARBAGE = (
    b"",
    b"garbage",
    b"null",
    b"[]",
    b"{}",
    b"[[]]",
    b'[{"ev":"AM","sym":"GARBAGE","o":1.5,"h":',
    b'[{"ev":"AM","sym":"GARBAGE"}]',
    b'[{"ev":"AM",' + _BAR + b',"s":1755932400001}]',
    b'[{"ev":"AM",' + _BAR + b',"s":1755932400000000000}]',
    b'[{"ev":"AM",' + _BAR + b',"s":"2025-08-23"}]',
    b'[{"ev":"AM",' + _BAR + b',"s":4102444800000,"e":4102444860000}]',
    b'[{"ev":"AM","sym":"GARBAGE","o":NaN,"h":2,"l":1,"c":2,"v":1,"s":1755932400000}]',
    b'[{"ev":"AM","sym":"GARBAGE","o":1,"h":1,"l":2,"c":1,"v":-5,"s":1755932400000}]',
    b'[{"ev":"AM","sym":"GAR\xff\xfeBAGE","s":1755932400000}]',
    b'[{"ev":"A","sym":"GARBAGE","s":1755932400500}]',
    b'[{"ev":"T","sym":"GARBAGE","p":0,"s":1,"t":1755932400000,"q":1}]',
    b'[{"ev":"status","status":7,"message":null}]',
    b'[{"ev":"status","status":"weather","message":"rain"}]',
    b'[{"ev":"ZZ","sym":"GARBAGE"},5,null,"text"]',
    b"[" * 2_000,
)
"""Messages that must change nothing in a client that goes on."""
