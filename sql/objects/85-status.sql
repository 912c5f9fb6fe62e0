-- What `tickstock db status` tells, for those who ask in SQL.

create or replace view tickstock.relation_sizes as
with recursive part (relation, part) as (
  select relation, stored_in::oid from tickstock.storage
  union all
  -- Chunks are the children of their hypertable.
  select part.relation, i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.part
)
select p.relation, (sum(pg_catalog.pg_total_relation_size(p.part)) + coalesce(max(s.bytes), 0))::bigint as bytes,
  -- Never analyzed: -1. Of a hypertable, rows are in its chunks; of a chunk in the columnstore the planner knows
  -- but those that have been written since.
  coalesce((sum(c.reltuples) filter (where c.reltuples >= 0 and not c.relhassubclass))::bigint + coalesce(max(s.rows), 0), max(s.rows))
    as approximate_rows, count(*) - 1 as chunks,
  coalesce(max(s.chunks), 0) as columnstore_chunks, coalesce(max(s.bytes), 0) as columnstore_bytes
from part p join pg_catalog.pg_class c on c.oid = p.part
left join tickstock.columnstore s on s.relation = p.relation
group by p.relation;
comment on view tickstock.relation_sizes is
  'Size on disk of each relation with its indexes, chunks and columnstore, and its rows: those in the columnstore as of their move there, others as the planner knows them (as of the last analyze; null: there was none yet).';

create or replace view tickstock.freshness as
select feed_clock() as feed_clock,
  (select count(*) from (select distinct symbol, granule from tickstock.dirty) d) as dirty_half_hours,
  (select coalesce(sum(cardinality(symbols)), 0) from tickstock.scan_queue) as candles_to_scan,
  tickstock.events_to_publish() as events_to_publish,
  (select max(detected_at) from events) as latest_event_at,
  (select count(*) from refused_bars where refused_at > now() - interval '1 day') as refused_today,
  nullif(tickstock.bars_since(), '-infinity') as bars_since,
  (select keep_bars from storage_policy) as keep_bars,
  (select columnstore_after from storage_policy) as columnstore_after;
comment on view tickstock.freshness is
  'How far everything has come: the feed''s clock, what waits to be refreshed, scanned and published, and how bars are kept.';
