-- Refreshing without continuous aggregates: the dirty candles, and only those, are computed anew.

create or replace function tickstock.rematerialize(timeframe text, key text, symbols text[], granules timestamptz[])
returns void
language plpgsql
as $$
begin
  execute format($q$
    with key as materialized (
      select distinct u.symbol, public.candle_start(%2$L, u.granule) as ts from unnest($1, $2) u (symbol, granule)
    ), fresh as materialized (
      select c.* from key cross join lateral tickstock.live_%1$s(key.symbol, key.ts) c
    ), gone as (
      delete from tickstock.candles_%1$s m using key
      where m.symbol = key.symbol and m.ts >= key.ts and m.ts < public.candle_end(%2$L, key.ts)
        and not exists (select from fresh f where f.symbol = m.symbol and f.ts = m.ts)
    )
    insert into tickstock.candles_%1$s as m select * from fresh order by symbol, ts
    on conflict (symbol, ts) do update
    set (open, high, low, close, volume, turnover, trades, bars)
      = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.turnover, excluded.trades, excluded.bars)
    where (m.open, m.high, m.low, m.close, m.volume, m.turnover, m.trades, m.bars) is distinct from
      (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.turnover, excluded.trades, excluded.bars)
  $q$, timeframe, key) using symbols, granules;
end $$;
comment on function tickstock.rematerialize(text, text, text[], timestamptz[]) is
  'Computes the candles of one timeframe that these half hours touch, and stores what differs. key: the unit computed at once.';

create or replace function tickstock.refresh_batch(up_to timestamptz, newest bigint, most integer) returns bigint
language plpgsql
as $$
declare
  taken_symbols text[];
  taken_granules timestamptz[];
  taken bigint;
begin
  -- One refresher at a time: another one's older snapshot must not overwrite newer candles.
  perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));
  -- Marks are deleted first, so that this transaction's own reading of exact_<timeframe> takes the
  -- candles it has just stored; for everybody else both happen at the commit. Marks that come in
  -- meanwhile stay, and keep their candles live.
  with gone as (
    delete from tickstock.dirty where ctid = any (array(
      select ctid from tickstock.dirty where granule < up_to and id <= newest order by id limit most))
    returning symbol, granule
  ), distinct_marks as (
    select distinct symbol, granule from gone order by 1, 2
  )
  select array_agg(symbol), array_agg(granule), (select count(*) from gone)
  into taken_symbols, taken_granules, taken from distinct_marks;
  if taken = 0 then
    return 0;
  end if;
  perform tickstock.rematerialize(t.timeframe,
      case when t.timeframe in ('5min', '15min') then '30min' else t.timeframe end, taken_symbols, taken_granules)
    from (select timeframe from public.timeframes where timeframe <> '1min' order by position) t;
  return taken;
end $$;
comment on function tickstock.refresh_batch(timestamptz, bigint, integer) is
  'Refreshes up to that many marks, none newer than newest, whose half hours begin before up_to; returns how many there were.';

create or replace procedure ohlcv_refresh()
language plpgsql
as $$
declare
  -- A half hour that is still forming would be dirty again a minute later: it stays live.
  up_to timestamptz := public.candle_start('30min', public.feed_clock());
  -- Writers go on meanwhile: what they add is for the next refresh, or this one would never end.
  newest bigint := (select max(id) from tickstock.dirty);
begin
  -- First, for a half hour whose marks lie in several batches would be computed once in each.
  perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));
  perform tickstock.thin_marks();
  commit;
  loop
    exit when tickstock.refresh_batch(up_to, newest, 50000) = 0;
    commit;
  end loop;
end $$;
comment on procedure ohlcv_refresh() is
  'Materializes the candles whose half hours have changed and are over. Changes cost, never results: the views are exact without it. Call it outside a transaction block; one runs at a time, others wait.';
