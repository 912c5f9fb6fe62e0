-- Old bars and candles are stored by columns, a symbol's together. ohlcv_keep_house() moves them.
-- Each chunk costs every query some planning: fewer of them where candles are few (by default ten weeks).
do $$
declare
  tf record;
begin
  alter table ohlcv_1min set (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'ts');
  for tf in select timeframe from timeframes where timeframe <> '1min' order by position loop
    execute format('alter materialized view tickstock.candles_%s
                    set (timescaledb.enable_columnstore, timescaledb.segmentby = ''symbol'', timescaledb.orderby = ''ts'')', tf.timeframe);
  end loop;
  for tf in
    select format('%I.%I', c.materialization_hypertable_schema, c.materialization_hypertable_name)::regclass as stored_in, w.width
    from timescaledb_information.continuous_aggregates c
    join (values ('4hour', interval '1 year'), ('daily', '5 years'), ('weekly', '20 years'), ('monthly', '50 years')) w (timeframe, width)
      on c.view_schema = 'tickstock' and c.view_name = 'candles_' || w.timeframe
  loop
    perform set_chunk_time_interval(tf.stored_in, tf.width);
  end loop;
end $$;
