-- NR7: The narrowest range of seven days; a move may follow.
-- high - low is below that of each of the `days` - 1 days before, all of which must be there.
-- days: candles, the judged one included.
-- Strength: 1 - range / the narrowest range before.
-- candles: days
-- timeframes: daily
-- parameters: days = 7
-- source: the original plan; Crabel, Day Trading with Short Term Price Patterns
select c.symbol, c.judged, 'neutral' as direction,
  (1 - (c.high - c.low) / b.narrowest)::float8 as strength,
  jsonb_build_object('range', c.high - c.low, 'narrowest_before', b.narrowest) as details
from candles c
join (
  select symbol, judged, min(high - low) as narrowest, count(*) as days
  from candles where back > 0 group by symbol, judged
) b on b.symbol = c.symbol and b.judged = c.judged
cross join parameters p
where c.back = 0 and b.days = p.days - 1 and c.high - c.low < b.narrowest
