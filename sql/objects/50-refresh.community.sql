-- Refreshing continuous aggregates. To them a change is a range of time, for all symbols: right for a
-- half hour that has ended, and for bulk loads; for a late bar it would mean to aggregate the bars of
-- ten thousand symbols for one. So candles of few symbols are mended one by one.

create or replace procedure tickstock.refresh_range(starts timestamptz, ends timestamptz)
language plpgsql
as $$
declare
  tfs text[] := array(select timeframe from public.timeframes where timeframe <> '1min' order by position);
  tf text;
  from_bucket timestamptz;
  to_bucket timestamptz;
begin
  -- Parents before children. Forced, since a change of trading_days invalidates nothing by itself.
  foreach tf in array tfs loop
    from_bucket := public.candle_start(tf, starts);
    to_bucket := public.candle_end(tf, public.candle_start(tf, ends - interval '1 microsecond'));
    call public.refresh_continuous_aggregate(format('tickstock.candles_%s', tf)::regclass, from_bucket, to_bucket,
      force => true, options => '{"buckets_per_batch": 0}');
  end loop;
end $$;
comment on procedure tickstock.refresh_range(timestamptz, timestamptz) is
  'Refreshes every continuous aggregate over this range, widened to whole candles. Commits as it goes.';

-- Up to version 0.1 it took no argument.
drop procedure if exists ohlcv_refresh();
create or replace procedure ohlcv_refresh(wait boolean default true)
language plpgsql
as $$
declare
  -- A half hour that is still forming would be dirty again a minute later: it stays live.
  up_to timestamptz := public.candle_start('30min', public.latest_minute());
  -- From so many symbols on, a half hour is refreshed, not mended: a hundred, or half of those there are.
  bulk integer := coalesce(nullif(current_setting('tickstock.bulk_symbols', true), '')::integer, (
    select least(100, count(distinct symbol) / 2 + 1) from tickstock.candles_monthly
    where ts >= public.candle_start('monthly', public.latest_minute() - interval '31 days')));
  newest bigint;
  seen bigint[];
  starts timestamptz[];
  ends timestamptz[];
begin
  -- Only the owner may refresh continuous aggregates. His job does so every ten seconds; where it is switched
  -- off, all candles are mended one by one.
  if not (select pg_has_role(c.relowner, 'usage') from pg_catalog.pg_class c where c.oid = 'tickstock.candles_5min'::regclass) then
    if exists (select from timescaledb_information.jobs j where j.proc_schema = 'tickstock' and j.proc_name = 'refresh_job' and j.scheduled) then
      return;
    end if;
    bulk := 2147483647;
  end if;
  -- A session's lock, since each refresh commits. It ends with the session at the latest; a lock
  -- that a failed call of this same session left behind is taken over.
  if not pg_try_advisory_lock(hashtext('tickstock.refresh')) then
    if not wait then
      return;
    end if;
    -- Holding no lock on bars, which to_columnstore() would wait for while it has this one.
    commit;
    perform pg_advisory_lock(hashtext('tickstock.refresh'));
  end if;
  perform tickstock.thin_marks();
  perform tickstock.move_recent();
  commit;
  newest := (select max(id) from tickstock.dirty);
  seen := array(select d.id from tickstock.dirty d
                join (select granule from tickstock.dirty where granule < up_to group by granule having count(distinct symbol) >= bulk) g
                  using (granule));
  if cardinality(seen) > 0 then
    -- Half hours less than a day apart make one range.
    select array_agg(first order by first), array_agg(last + interval '30 minutes' order by first) into starts, ends
    from (select min(granule) as first, max(granule) as last
          from (select granule, count(*) filter (where gap) over (order by granule) as island
                from (select granule, granule - lag(granule) over (order by granule) > interval '1 day' as gap
                      from (select distinct granule from tickstock.dirty where id = any (seen)) g) h) i
          group by island) r;
    commit;
    for i in 1 .. cardinality(starts) loop
      call tickstock.refresh_range(starts[i], ends[i]);
    end loop;
    -- Marks that came in meanwhile were not seen: they stay, and keep their candles live.
    delete from tickstock.dirty where id = any (seen);
  end if;
  commit;
  loop
    exit when tickstock.refresh_batch(up_to, newest, 50000) = 0;
    commit;
  end loop;
  commit;  -- refresh_batch's own hold of the lock, which is its transaction's
  while exists (select from pg_catalog.pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objsubid = 1
                and database = (select oid from pg_catalog.pg_database where datname = current_database())
                and objid::bigint = hashtext('tickstock.refresh')::bigint & x'ffffffff'::bigint) loop
    perform pg_advisory_unlock(hashtext('tickstock.refresh'));
  end loop;
end $$;
comment on procedure ohlcv_refresh(boolean) is
  'Materializes the candles whose half hours have changed and are over. Changes cost, never results: the views are exact without it. Call it outside a transaction block. One runs at a time: another one waits for it, or with wait => false leaves the work to it.';
