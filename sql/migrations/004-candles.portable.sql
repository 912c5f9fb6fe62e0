-- Engines without continuous aggregates: candles are materialized into tables, which ohlcv_refresh()
-- brings up to date candle by candle.
do $$
declare
  tf text;
begin
  for tf in select timeframe from timeframes where timeframe <> '1min' order by position loop
    execute format('create table tickstock.candles_%s (
      symbol text not null, ts timestamptz not null,
      open numeric not null, high numeric not null, low numeric not null, close numeric not null,
      volume numeric not null, turnover numeric, trades bigint, bars integer not null,
      primary key (symbol, ts)) with (fillfactor = 85)', tf);
    execute format('create index on tickstock.candles_%s (ts desc)', tf);
    execute format('comment on table tickstock.candles_%s is %L', tf,
      'Materialized candles. Stale where tickstock.dirty says so: read ohlcv_' || tf || ' instead.');
  end loop;
end $$;
