create or replace view tickstock.storage as
select 'ohlcv_1min' as relation, 'public.ohlcv_1min'::regclass as stored_in
union all
select 'ohlcv_' || timeframe, format('tickstock.candles_%s', timeframe)::regclass from timeframes where timeframe <> '1min'
union all
-- Whatever the search_path of who looks.
select name, ('public.' || name)::regclass from unnest(array['ticks', 'events', 'refused_bars', 'ohlcv_revisions', 'backfills', 'trading_days']) name
union all
select name, name::regclass from unnest(array['tickstock.dirty', 'tickstock.scan_queue']) name;
comment on view tickstock.storage is 'Which table holds the rows of which relation.';

create or replace view tickstock.columnstore as
select null::text as relation, null::bigint as chunks, null::bigint as bytes, null::bigint as bytes_before, null::bigint as rows where false;
comment on view tickstock.columnstore is 'What is in the columnstore: nothing, for this engine has none.';
