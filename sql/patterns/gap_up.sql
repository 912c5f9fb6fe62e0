-- GapUp: The day opens above all prices of the day before, and far above its close.
-- open > high before, and open >= close before * (1 + min_gap).
-- min_gap: share of the close before.
-- Strength: the share of the gap that the day leaves open, (low - close before) / (open - close before).
-- candles: 2
-- timeframes: daily
-- parameters: min_gap = 0.02
-- source: the original plan; the full gap after Bulkowski, Encyclopedia of Chart Patterns
select c.symbol, c.judged, 'long' as direction,
  greatest(0, (c.low - b.close) / (c.open - b.close))::float8 as strength,
  jsonb_build_object('open', c.open, 'close_before', b.close, 'high_before', b.high,
                     'gap', round(c.open / b.close - 1, 6)) as details
from candles c
join candles b on b.symbol = c.symbol and b.judged = c.judged and b.back = 1
cross join parameters p
where c.back = 0 and c.open > b.high and c.open > b.close and c.open >= b.close * (1 + p.min_gap)
