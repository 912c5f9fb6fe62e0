-- Refreshing continuous aggregates. What is dirty here is a range of time, for all symbols.

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

create or replace procedure ohlcv_refresh()
language plpgsql
as $$
declare
  -- A half hour that is still forming would be dirty again a minute later: it stays live.
  up_to timestamptz := public.candle_start('30min', public.feed_clock());
  seen bigint[];
  starts timestamptz[];
  ends timestamptz[];
begin
  -- A session's lock, since each refresh commits. It ends with the session at the latest; a lock
  -- that a failed call of this same session left behind is taken over.
  perform pg_advisory_lock(hashtext('tickstock.refresh'));
  seen := array(select id from tickstock.dirty where granule < up_to);
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
  perform tickstock.thin_marks();
  commit;
  while exists (select from pg_catalog.pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objsubid = 1
                and database = (select oid from pg_catalog.pg_database where datname = current_database())
                and objid::bigint = hashtext('tickstock.refresh')::bigint & x'ffffffff'::bigint) loop
    perform pg_advisory_unlock(hashtext('tickstock.refresh'));
  end loop;
end $$;
comment on procedure ohlcv_refresh() is
  'Materializes the candles whose half hours have changed and are over. Changes cost, never results: the views are exact without it. Call it outside a transaction block; one runs at a time, others wait.';
