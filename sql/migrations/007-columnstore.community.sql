-- Old bars and candles are stored by columns, a symbol's together. ohlcv_keep_house() moves them.
do $$
declare
  tf record;
begin
  alter table ohlcv_1min set (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'ts');
  for tf in select timeframe from timeframes where timeframe <> '1min' order by position loop
    execute format('alter materialized view tickstock.candles_%s
                    set (timescaledb.enable_columnstore, timescaledb.segmentby = ''symbol'', timescaledb.orderby = ''ts'')', tf.timeframe);
  end loop;
end $$;
