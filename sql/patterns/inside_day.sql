-- InsideDay: The day's range lies within that of the day before.
-- high < high before, and low > low before.
-- Strength: 1 - range / range before: the narrower, the stronger.
-- candles: 2
-- timeframes: daily
-- source: the original plan; Crabel, Day Trading with Short Term Price Patterns
select c.symbol, c.judged, 'neutral' as direction,
  (1 - (c.high - c.low) / (b.high - b.low))::float8 as strength,
  jsonb_build_object('high', c.high, 'low', c.low, 'high_before', b.high, 'low_before', b.low) as details
from candles c
join candles b on b.symbol = c.symbol and b.judged = c.judged and b.back = 1
where c.back = 0 and c.high < b.high and c.low > b.low
