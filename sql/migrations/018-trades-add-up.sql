-- A count of trades near the largest integer, which stands for "unknown" in some files, can't be added to another one:
-- from then on every refresh failed, and with it all symbols' candles stayed unmaterialized. Of a hundred billion a
-- minute even a candle of a century has a sum.
-- Not valid, as in 017.
alter table ohlcv_1min add constraint ohlcv_1min_trades_add_up check (trades < 100000000000) not valid;
