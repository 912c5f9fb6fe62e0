"""What a trade may change in its minute, by its condition codes.

The vendor's consolidated rule: each condition code of a trade may deny it
something, and a "no" of one code outweighs a "yes" of another. A trade without codes may do all.

- Volume, vwap and the number of trades: every trade but official opens and closes and corrected
  closes (15, 16, 38).
- No price at all: average price (2), cash (7), extended hours out of sequence (13), official close
  and open (15, 16), next day (20), price variation (21), odd lot (37), contingent (52, 53); and Form
  T (12) while the regular session is on. Before 09:30 and after 16:00 Form T sets prices like any.
- High and low, but open and close only where no other trade of the minute sets them: bunched sold
  (5), derivatively priced (10), prior reference price (22), seller (29), sold out of sequence (32, 33).
"""

from typing import NamedTuple

NO_VOLUME = frozenset({15, 16, 38})
NO_PRICE = frozenset({2, 7, 13, 15, 16, 20, 21, 37, 52, 53})
HIGH_AND_LOW_ONLY = frozenset({5, 10, 22, 29, 32, 33})
FORM_T = 12

_REMEMBERED = 100_000
"""Combinations of conditions that are worked out only once."""


class Effect(NamedTuple):
    """What a trade may change."""

    volume: bool
    """Volume, turnover, number of trades."""
    rank: int
    """0: all prices. 1: high and low; open and close if there is no 0. 2: no price."""


ALL = Effect(volume=True, rank=0)


def effect(conditions: tuple[int, ...], regular: bool) -> Effect:
    """What a trade with these conditions may change; `regular`: is it in the regular session?"""
    codes = frozenset(conditions)
    rank = 1 if codes & HIGH_AND_LOW_ONLY else 0
    if codes & NO_PRICE or (regular and FORM_T in codes):
        rank = 2
    return Effect(not codes & NO_VOLUME, rank)


class _Effects(dict[tuple[int, ...], Effect]):
    """`effect` of each combination that has been seen."""

    def __init__(self, regular: bool) -> None:
        self._regular = regular

    def __missing__(self, conditions: tuple[int, ...]) -> Effect:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[conditions] = found = effect(conditions, self._regular)
        return found


EFFECTS = (_Effects(False), _Effects(True))
"""By whether the trade is in the regular session, then by its conditions."""
