-- What plain SQL could still write, and what then failed for all symbols: refreshes, where a product or a time went
-- beyond what PostgreSQL holds; scanners, at a year that Python has no date for, at a number that is no double, and at
-- an event too long for a NOTIFY. These bounds are far from any market's.
-- Where there was a constraint it gets the bound instead of infinity, and costs a bar no more than before; only digits
-- after the point, which none of these see, take one more.
-- Not valid, as in 017.
alter table ohlcv_1min
  drop constraint ohlcv_1min_symbol,
  add constraint ohlcv_1min_symbol check (octet_length(symbol) between 1 and 256) not valid,
  drop constraint ohlcv_1min_finite,
  add constraint ohlcv_1min_years check (ts >= '1700-01-01 00:00+00' and ts < '3000-01-01 00:00+00') not valid,
  drop constraint ohlcv_1min_prices,
  add constraint ohlcv_1min_prices check
    (low >= 0 and low <= open and low <= close and high >= open and high >= close and high < 1e30) not valid,
  drop constraint ohlcv_1min_volume,
  add constraint ohlcv_1min_volume check (volume >= 0 and volume < 1e30) not valid,
  drop constraint ohlcv_1min_vwap,
  add constraint ohlcv_1min_vwap check (vwap >= 0 and vwap < 1e30) not valid,
  add constraint ohlcv_1min_decimals check
    (scale(open) <= 100 and scale(high) <= 100 and scale(low) <= 100 and scale(close) <= 100 and scale(volume) <= 100) not valid;
