"""What minute bars are made of: trades, and the feed's bars of one second."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tickstock.bars import Number


class Trade(NamedTuple):
    """One trade (the feed's `T`)."""

    symbol: str
    at: int
    """When the SIP had it, in milliseconds after the epoch, UTC: the time that sorts it into a bar."""
    sequence: int
    """Increases through a symbol's day, with holes; no two trades of a day share one."""
    price: Number
    """In the listing's currency, unadjusted."""
    size: Number
    """Shares, may be fractional. 0 in reports that are no trade, such as an official close."""
    conditions: tuple[int, ...] = ()
    """The vendor's condition codes: they decide what of a bar the trade may change."""
    event: Mapping[str, Any] = MappingProxyType({})
    """All that the feed sent; `venue` reads the rest of it."""

    @property
    def venue(self) -> "Venue":
        """Where it was made and reported. No bar needs it, so it is read only on demand."""
        get = self.event.get
        exchange, tape, trf = (_small(get(name)) for name in ("x", "z", "trfi"))
        name, trf_at = get("i"), get("trft")
        return Venue(
            exchange,
            name if type(name) is str and len(name) <= 64 and name.isprintable() else None,
            tape,
            trf,
            trf_at if type(trf_at) is int and 0 <= trf_at < 2**63 else None,
        )


class Venue(NamedTuple):
    """Where a trade was made and reported. What the feed left out, or spelled wrongly, is None."""

    exchange: int | None
    id: str | None
    """Unique together with symbol, exchange and `trf`."""
    tape: int | None
    """1 NYSE, 2 NYSE Arca and American, 3 Nasdaq."""
    trf: int | None
    """The trade reporting facility, for trades off the exchanges."""
    trf_at: int | None
    """When the facility had it, in milliseconds after the epoch, UTC."""


def _small(code: Any) -> int | None:
    return code if type(code) is int and 0 <= code < 10_000 else None


class Second(NamedTuple):
    """One symbol's trading in one second (the feed's `A`). Prices and volume as in `Bar`."""

    symbol: str
    at: int
    """Start of the second, in milliseconds after the epoch, UTC."""
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    vwap: Number | None = None
