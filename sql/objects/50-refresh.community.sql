-- Refreshing continuous aggregates. To them a change is a range of time, for all symbols: right for a
-- half hour that has ended, and for bulk loads; for a late bar it would mean to aggregate the bars of
-- ten thousand symbols for one. So candles of few symbols are mended one by one.

drop procedure if exists tickstock.refresh_range(timestamptz, timestamptz);
create or replace procedure tickstock.refresh_range(starts timestamptz, ends timestamptz, tfs text[])
language plpgsql
as $$
declare
  tf text;
  from_bucket timestamptz;
  to_bucket timestamptz;
begin
  -- Forced, since a change of trading_days invalidates nothing by itself.
  foreach tf in array tfs loop
    from_bucket := public.candle_start(tf, starts);
    to_bucket := public.candle_end(tf, public.candle_start(tf, ends - interval '1 microsecond'));
    call public.refresh_continuous_aggregate(format('tickstock.candles_%s', tf)::regclass, from_bucket, to_bucket,
      force => true, options => '{"buckets_per_batch": 0}');
  end loop;
end $$;
comment on procedure tickstock.refresh_range(timestamptz, timestamptz, text[]) is
  'Refreshes the continuous aggregates of these timeframes, shorter ones first, over this range, widened to whole candles. Commits as it goes.';

create or replace function tickstock.bulk_since(since timestamptz[]) returns timestamptz
language sql immutable parallel safe
return (select public.candle_start('5min', percentile_disc(0.01) within group (order by s)) from unnest(since) s);
comment on function tickstock.bulk_since(timestamptz[]) is
  'From which 5min candle on marks with these earliest minutes are refreshed together. The few before, fewer than one in a hundred, are mended one by one: they would have all symbols'' candles made again.';

create or replace procedure tickstock.refresh_ended(up_to timestamptz, bulk integer)
language plpgsql
as $$
declare
  tfs text[] := array(select timeframe from public.timeframes where timeframe <> '1min' order by position);
  granules timestamptz[];
  sinces timestamptz[];
  seen bigint[];
  starts timestamptz[];
  ends timestamptz[];
begin
  -- Thinned just now: as many marks as symbols, but for what has come in since.
  select array_agg(granule), array_agg(since) into granules, sinces
  from (select granule, tickstock.bulk_since(array_agg(greatest(since, granule))) as since
        from tickstock.dirty where granule < up_to group by granule having count(*) >= bulk) g;
  seen := array(select d.id from tickstock.dirty d join unnest(granules, sinces) g (granule, since)
                on d.granule = g.granule and greatest(d.since, d.granule) >= g.since);
  if cardinality(seen) = 0 then
    return;
  end if;
  -- Half hours less than a day apart make one range.
  select array_agg(first order by first), array_agg(last + interval '30 minutes' order by first) into starts, ends
  from (select min(since) as first, max(granule) as last
        from (select granule, since, count(*) filter (where gap) over (order by granule) as island
              from (select granule, since, granule - lag(granule) over (order by granule) > interval '1 day' as gap
                    from unnest(granules, sinces) g (granule, since)) h) i
        group by island) r;
  commit;
  for i in 1 .. cardinality(starts) loop
    call tickstock.refresh_range(starts[i], ends[i], tfs);
  end loop;
  -- Marks that came in meanwhile were not seen: they stay, and keep their candles live.
  delete from tickstock.dirty where id = any (seen);
  commit;
end $$;
comment on procedure tickstock.refresh_ended(timestamptz, integer) is
  'Materializes all candles of half hours that begin before up_to and in which so many symbols have changed. Only under the refresher''s lock.';

-- Waiting for its end would leave six 5-minute candles of each symbol to be made in one go. Marks stay, and
-- keep all candles of the half hour live; but they tell from then on that these candles are made. Who dies in
-- between leaves marks that tell of more than there is to do.
create or replace procedure tickstock.refresh_forming(granule timestamptz, clock timestamptz, bulk integer)
language plpgsql
as $$
declare
  made_up_to timestamptz := public.candle_start('5min', clock);
  seen bigint[];
  starts timestamptz;
begin
  with changed as (
    select d.id, greatest(d.since, d.granule) as since from tickstock.dirty d
    where d.granule = refresh_forming.granule and d.since < made_up_to
  )
  select array_agg(id), min(since) into seen, starts from changed
  where since >= (select tickstock.bulk_since(array_agg(c.since)) from changed c)
  having (select count(*) from changed) >= bulk;
  if seen is null then
    return;
  end if;
  commit;
  call tickstock.refresh_range(starts, made_up_to, '{5min}');
  if public.candle_start('15min', starts) < public.candle_start('15min', made_up_to) then
    call tickstock.refresh_range(starts, public.candle_start('15min', made_up_to), '{15min}');
  end if;
  -- Marks that came in meanwhile were not seen, and go on telling what they do.
  update tickstock.dirty d set since = made_up_to where d.id = any (seen);
  commit;
end $$;
comment on procedure tickstock.refresh_forming(timestamptz, timestamptz, integer) is
  'Materializes 5min and 15min candles of a forming half hour that have ended by this clock, if so many symbols have changed in them. Only under the refresher''s lock.';

-- Up to version 0.1 it took no argument.
drop procedure if exists ohlcv_refresh();
create or replace procedure ohlcv_refresh(wait boolean default true)
language plpgsql
as $$
declare
  clock timestamptz := public.latest_minute();
  -- A half hour that is still forming would be dirty again a minute later: it stays live.
  up_to timestamptz := public.candle_start('30min', clock);
  -- From so many symbols on, a half hour is refreshed, not mended: a hundred, or half of those there are.
  bulk integer := coalesce(nullif(current_setting('tickstock.bulk_symbols', true), '')::integer, (
    select least(100, count(distinct symbol) / 2 + 1) from tickstock.candles_monthly
    where ts >= public.candle_start('monthly', clock - interval '31 days')));
  newest bigint;
  -- Only the owner may refresh continuous aggregates. His job does so every ten seconds; where it is switched
  -- off, all candles are mended one by one.
  is_owner boolean := (select pg_has_role(c.relowner, 'usage') from pg_catalog.pg_class c where c.oid = 'tickstock.candles_5min'::regclass);
begin
  if not is_owner
    and exists (select from timescaledb_information.jobs j where j.proc_schema = 'tickstock' and j.proc_name = 'refresh_job' and j.scheduled) then
    return;
  end if;
  call tickstock.refuse_transaction_block('ohlcv_refresh');
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
  if is_owner then
    call tickstock.refresh_ended(up_to, bulk);
    call tickstock.refresh_forming(up_to, clock, bulk);
  end if;
  loop
    exit when tickstock.refresh_batch(up_to, newest, 50000) = 0;
    commit;
  end loop;
  commit;  -- refresh_batch's own hold of the lock, which is its transaction's
  call tickstock.let_go('tickstock.refresh');
end $$;
comment on procedure ohlcv_refresh(boolean) is
  'Materializes the candles whose half hours have changed and are over, and 5min and 15min candles that are over of one that is not. Changes cost, never results: the views are exact without it. Call it outside a transaction block. One runs at a time: another one waits for it, or with wait => false leaves the work to it.';
