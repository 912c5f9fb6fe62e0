-- Low52Week: The low is below all lows of the year before.
-- low < the lowest low of the `days` - 1 candles before, all of which must be there: 252 trading days are a year.
-- days: candles, the judged one included.
-- Strength: how far below, in ranges (high - low) of the judged day; 1 if all of it is below.
-- candles: days
-- timeframes: daily
-- parameters: days = 252
-- source: the original plan
select c.symbol, c.judged, 'short' as direction,
  least(1, abs(c.low - b.extreme) / nullif(c.high - c.low, 0))::float8 as strength,
  jsonb_build_object('low', c.low, 'broken', b.extreme) as details
from candles c
join (
  select symbol, judged, min(low) as extreme, count(*) as days
  from candles where back > 0 group by symbol, judged
) b on b.symbol = c.symbol and b.judged = c.judged
cross join parameters p
where c.back = 0 and b.days = p.days - 1 and c.low < b.extreme
