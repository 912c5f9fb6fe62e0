-- What bar_defect() calls impossible and plain SQL could write nevertheless. The columnstore's upkeep takes rows
-- without a symbol for its own, so their candles went; and a bar at the end of time is in no candle, and leaves a
-- mark that is never refreshed.
-- Not valid: rows that are there already do not keep the database from being migrated, and are not read for it.
alter table ohlcv_1min add constraint ohlcv_1min_symbol check (symbol <> '') not valid;
alter table ohlcv_1min add constraint ohlcv_1min_finite check (isfinite(ts)) not valid;
