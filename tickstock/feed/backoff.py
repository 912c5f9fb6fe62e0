"""How long to wait before the next try: longer each time up to a cap, never in step with others."""

import random


class Backoff:
    """Exponential back-off with full jitter above a floor.

    The n-th wait is drawn evenly between `first / 2` and `min(cap, first * factor ** (n - 1))`, all
    in seconds. Raises ValueError unless 0 < first <= cap < infinity and factor >= 1.
    """

    def __init__(
        self,
        first: float = 1.0,
        cap: float = 30.0,
        factor: float = 2.0,
        rng: random.Random | None = None,
    ) -> None:
        if not (0 < first <= cap < float("inf") and factor >= 1):
            raise ValueError("a back-off needs 0 < first <= cap < infinity and factor >= 1")
        self._first = first
        self._cap = cap
        self._factor = factor
        self._rng = rng if rng is not None else random.SystemRandom()
        self._ceiling = first

    def next(self) -> float:
        """Seconds to wait now; the following wait may be longer."""
        ceiling = self._ceiling
        self._ceiling = min(self._cap, ceiling * self._factor)
        return self._rng.uniform(self._first / 2, ceiling)

    def reset(self) -> None:
        """Things work again: the next wait is a short one."""
        self._ceiling = self._first
