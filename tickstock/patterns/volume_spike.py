"""VolumeSpike: a candle with several times the usual volume."""

import numpy as np

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, mean, share


@pattern(
    "VolumeSpike",
    candles=lambda p, _timeframe: p.whole("mean_of") + 1,
    parameters={"mean_of": 20, "min_volume": 3.0},
    source="the original plan; mean and ratio are our own",
)
def volume_spike(c: Candles, p: Parameters) -> Found:
    """The volume is at least three times the mean of the 20 candles before.

    volume >= min_volume * mean volume of the mean_of candles before, all of which must be there.
    The direction is that of the candle: long if it closes above its open, short below, else neutral.
    mean_of: candles. min_volume: times the mean.
    Strength: 1 - mean volume / volume: 0.67 for three times, 0.9 for ten times.
    """
    volume, usual = c.volume[-1], mean(c.volume[:-1])
    where = at_least(volume, p.min_volume * usual) & above(volume, 0)
    direction = np.sign(c.close[-1] - c.open[-1]).astype(np.int8)
    return Found(
        where, direction, 1 - share(usual, volume), {"volume": volume, "mean_volume": usual}
    )
