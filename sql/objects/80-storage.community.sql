create or replace view tickstock.storage as
select 'ohlcv_1min' as relation, 'public.ohlcv_1min'::regclass as stored_in
union all
select replace(view_name, 'candles_', 'ohlcv_'), format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass
from timescaledb_information.continuous_aggregates where view_schema = 'tickstock'
union all
-- Whatever the search_path of who looks.
select name, ('public.' || name)::regclass from unnest(array['ticks', 'events', 'refused_bars', 'ohlcv_revisions', 'backfills', 'trading_days']) name
union all
select name, name::regclass from unnest(array['tickstock.dirty', 'tickstock.scan_queue']) name;
comment on view tickstock.storage is 'Which table holds the rows of which relation.';

create or replace view tickstock.columnstore as
select s.relation, count(*) as chunks, sum(c.after_compression_total_bytes)::bigint as bytes,
  sum(c.before_compression_total_bytes)::bigint as bytes_before, sum(z.numrows_pre_compression)::bigint as rows
from tickstock.storage s
join (select 'ohlcv_' || timeframe as relation from timeframes union all select 'ticks') columnar on columnar.relation = s.relation
cross join lateral chunk_columnstore_stats(s.stored_in) c
left join _timescaledb_catalog.compression_chunk_size z
  on z.chunk_id = _timescaledb_functions.chunk_id_from_relid(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass)
where c.compression_status = 'Compressed'
group by s.relation;
comment on view tickstock.columnstore is
  'What of each relation is in the columnstore: chunks, bytes there, and bytes that these rows took before and how many they were, as of when they were moved.';
