-- Who may do what. The owner is whoever migrated: all of it is his. Two group roles, made by
-- `tickstock db grant`, have what is told here, and public has nothing:
--
--   tickstock_reader  analysts, Grafana: every table and view, and the functions that only read
--   tickstock_writer  ingest, scan, listen, load, backfill: that, and what these commands write
--
-- What keeps the candles exact is not the writer's: marks, revisions and materialized candles are written
-- by functions with the owner's rights (security definer, with a fixed search_path), the calendar and the
-- storage policy by the owner alone.

create or replace view tickstock.our_objects as
select 'table' as kind, n.nspname as schema, c.relname as name, format('%I.%I', n.nspname, c.relname) as object,
  false as only_reads, coalesce(c.relacl, acldefault('r', c.relowner)) as rights
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm')
  -- Others may have tables in public: what is not named is not ours.
  and (n.nspname = 'tickstock' or n.nspname = 'public' and (
    c.relname = any ('{timeframes, trading_days, sessions, market_days, ticks, events, event_outcomes, pattern_performance, patterns,
                       consumers, refused_bars, ohlcv_revisions, ohlcv_1min_versions, backfills, feed_stretches, feed_live, feed_gaps,
                       feed_status, minutes_complete, storage_policy}')
    or c.relname in (select 'ohlcv_' || t.timeframe from public.timeframes t)))
union all
select 'sequence', n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), false, coalesce(c.relacl, acldefault('s', c.relowner))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'S' and (n.nspname = 'tickstock' or n.nspname = 'public' and c.relname = any (
  '{events_id_seq, events_change_seq, refused_bars_id_seq, ohlcv_revisions_id_seq, feed_stretches_id_seq}'))
union all
select 'routine', n.nspname, p.proname, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
  -- PostgreSQL keeps these from writing.
  p.prokind = 'f' and p.provolatile in ('i', 's'), coalesce(p.proacl, acldefault('f', p.proowner))
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'tickstock' or n.nspname = 'public' and p.proname = any (
    '{candle_start, candle_end, candle_complete_at, latest_minute, feed_clock, tickstock_engine, session_of, is_trading_day, next_trading_day,
      previous_trading_day, trading_day_of, candles, active_symbols, owed_by_hour, coverage, missing_minutes, latest_candles, daily_returns, top_movers, latest_prices, bar_defect, event_candles, symbol_status,
      ohlcv_refresh, drop_bars, ohlcv_keep_house}')
  and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
union all
select 'schema', n.nspname, n.nspname, quote_ident(n.nspname), false, coalesce(n.nspacl, acldefault('n', n.nspowner))
from pg_catalog.pg_namespace n where n.nspname = 'tickstock';
comment on view tickstock.our_objects is
  'Tables, views, sequences, routines and the schema of tickstock, each with the rights that there are. only_reads: a function that PostgreSQL keeps from writing.';

create or replace view tickstock.rights as
select o.kind, o.object, r.grantee, r.privilege
from tickstock.our_objects o
cross join lateral (
  select g.grantee, a.privilege
  from unnest('{tickstock_reader, tickstock_writer}'::text[]) g (grantee)
  cross join (values ('table', 'SELECT'), ('schema', 'USAGE'), ('routine', 'EXECUTE')) a (kind, privilege)
  where a.kind = o.kind and (o.kind <> 'routine' or o.only_reads)
) r
union all
select o.kind, o.object, 'tickstock_writer', unnest(string_to_array(w.privileges, ', '))
from (values
  ('table', 'public', 'ohlcv_1min', 'INSERT, UPDATE'),
  ('table', 'public', 'refused_bars', 'INSERT'),
  ('table', 'public', 'ticks', 'INSERT'),
  ('table', 'public', 'feed_stretches', 'INSERT, UPDATE'),
  ('table', 'public', 'backfills', 'INSERT, UPDATE, DELETE'),
  ('table', 'public', 'minutes_complete', 'INSERT'),
  ('table', 'public', 'patterns', 'INSERT, UPDATE'),
  ('table', 'public', 'events', 'INSERT, UPDATE'),
  ('table', 'public', 'consumers', 'INSERT, UPDATE'),
  ('table', 'tickstock', 'doubts', 'INSERT, DELETE'),
  ('table', 'tickstock', 'scan_queue', 'INSERT, DELETE'),
  -- To lock a row, and to count.
  ('table', 'tickstock', 'scan_shards', 'UPDATE'),
  ('table', 'tickstock', 'publishing', 'INSERT, UPDATE'),
  ('sequence', 'public', 'events_change_seq', 'USAGE'),
  ('routine', 'public', 'ohlcv_refresh', 'EXECUTE'),
  ('routine', 'tickstock', 'refuse_transaction_block', 'EXECUTE'),
  ('routine', 'tickstock', 'no_commit_here', 'EXECUTE'),
  ('routine', 'tickstock', 'let_go', 'EXECUTE'),
  ('routine', 'tickstock', 'thin_marks', 'EXECUTE'),
  ('routine', 'tickstock', 'move_recent', 'EXECUTE'),
  ('routine', 'tickstock', 'refresh_batch', 'EXECUTE'),
  ('routine', 'tickstock', 'prepare_incoming', 'EXECUTE'),
  ('routine', 'tickstock', 'merge_incoming', 'EXECUTE'),
  ('routine', 'tickstock', 'prepare_ticks', 'EXECUTE'),
  ('routine', 'tickstock', 'merge_ticks', 'EXECUTE'),
  ('routine', 'tickstock', 'doubt', 'EXECUTE'),
  ('routine', 'tickstock', 'open_stretch', 'EXECUTE'),
  ('routine', 'tickstock', 'hold_stretch', 'EXECUTE'),
  ('routine', 'tickstock', 'extend_stretch', 'EXECUTE'),
  ('routine', 'tickstock', 'close_stretch', 'EXECUTE'),
  ('routine', 'tickstock', 'complete_minute', 'EXECUTE'),
  ('routine', 'tickstock', 'settle', 'EXECUTE'),
  ('routine', 'tickstock', 'forget_told_by_all', 'EXECUTE'),
  ('routine', 'tickstock', 'take_shards', 'EXECUTE'),
  ('routine', 'tickstock', 'take_candles', 'EXECUTE'),
  ('routine', 'tickstock', 'record_events', 'EXECUTE'),
  ('routine', 'tickstock', 'begin_publishing', 'EXECUTE')
) w (kind, schema, name, privileges)
join tickstock.our_objects o on (o.kind, o.schema, o.name) = (w.kind, w.schema, w.name);
comment on view tickstock.rights is
  'The rights that tickstock_reader and tickstock_writer are to have; public is to have none. tickstock.apply_rights() sees to it. Example: select object, privilege from tickstock.rights where grantee = ''tickstock_writer'' and privilege <> ''SELECT''.';

create or replace function tickstock.apply_rights() returns integer
language plpgsql
as $$
declare
  statement text;
  changes integer := 0;
begin
  for statement in
    with ruled (grantee, role) as (
      -- Group roles that are not there yet are left out; what other roles were given by hand is not ours.
      values ('public', 0::oid)
      union all select rolname, oid from pg_catalog.pg_roles where rolname in ('tickstock_reader', 'tickstock_writer')
    ), there as (
      select o.kind, o.object, r.grantee, a.privilege_type as privilege
      from tickstock.our_objects o cross join lateral pg_catalog.aclexplode(o.rights) a join ruled r on r.role = a.grantee
    ), wanted as (
      select w.kind, w.object, w.grantee, w.privilege from tickstock.rights w join ruled r using (grantee)
    )
    select format('revoke %s on %s %s from %s', privilege, kind, object, grantee) from (select * from there except select * from wanted) e
    union all
    select format('grant %s on %s %s to %s', privilege, kind, object, grantee) from (select * from wanted except select * from there) e
  loop
    execute statement;
    changes := changes + 1;
  end loop;
  -- What the database gives to everybody, as far as it is ours: temporary tables, and before PostgreSQL 15 tables in public.
  if (select pg_has_role(d.datdba, 'usage') from pg_catalog.pg_database d where d.datname = current_database()) then
    if has_database_privilege('public', current_database(), 'temporary') then
      execute format('revoke temporary on database %I from public', current_database());
    end if;
    if has_schema_privilege('public', 'public', 'create') then
      revoke create on schema public from public;
    end if;
    if to_regrole('tickstock_writer') is not null and not has_database_privilege('tickstock_writer', current_database(), 'temporary') then
      -- Bars wait in a temporary table until they are merged.
      execute format('grant temporary on database %I to tickstock_writer', current_database());
    end if;
  end if;
  return changes;
end $$;
comment on function tickstock.apply_rights() is
  'Makes the rights in this database those of tickstock.rights, and returns how many had to be changed. tickstock db migrate and tickstock db grant call it.';

select tickstock.apply_rights();
