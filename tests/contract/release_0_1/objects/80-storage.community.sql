create or replace view tickstock.storage as
select 'ohlcv_1min' as relation, 'public.ohlcv_1min'::regclass as stored_in
union all
select replace(view_name, 'candles_', 'ohlcv_'), format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass
from timescaledb_information.continuous_aggregates where view_schema = 'tickstock'
union all
select name, name::regclass from unnest(array['events', 'refused_bars', 'trading_days', 'tickstock.dirty', 'tickstock.scan_queue']) name;
comment on view tickstock.storage is 'Which table holds the rows of which relation.';
