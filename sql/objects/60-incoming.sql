-- How bars come in: COPY into the temporary table incoming_bars, then one call that judges, merges
-- and counts. The feed, files and analysts use the same door.

create or replace function bar_defect(symbol text, ts timestamptz, open numeric, high numeric, low numeric,
                                      close numeric, volume numeric, vwap numeric, trades bigint) returns text
language sql stable parallel safe
return case
  when coalesce(symbol, '') = '' then 'no symbol'
  when octet_length(symbol) > 256 then format('a symbol of %s bytes', octet_length(symbol))
  when ts is null then 'no time'
  when not isfinite(ts) or date_bin('1 minute', ts, '2000-01-03 00:00+00') <> ts then format('time %s is not the start of a minute', ts)
  when ts < '1700-01-01 00:00+00' then format('time %s is before 1700', ts)
  when ts > now() + interval '1 day' then format('time %s is more than a day in the future', ts)
  when ts < tickstock.bars_since() then format('bars before %s have been dropped, and their candles are final', tickstock.bars_since())
  when open is null or high is null or low is null or close is null then 'a price is missing'
  when not (open < 'Infinity' and high < 'Infinity' and low < 'Infinity' and close < 'Infinity') then 'a price is not a finite number'
  when open < 0 or high < 0 or low < 0 or close < 0 then 'a price is negative'
  -- More, and a double or a candle's turnover could not hold it.
  when greatest(open, high, low, close) >= 1e30 then 'a price is 1e30 or more'
  when greatest(scale(open), scale(high), scale(low), scale(close)) > 100 then 'a price has more than 100 decimals'
  when high < low then format('high %s is below low %s', high, low)
  when high < greatest(open, close) then format('high %s is below open %s or close %s', high, open, close)
  when low > least(open, close) then format('low %s is above open %s or close %s', low, open, close)
  when volume is null then 'the volume is missing'
  when not volume < 'Infinity' then 'the volume is not a finite number'
  when volume >= 1e30 then 'the volume is 1e30 or more'
  when scale(volume) > 100 then 'the volume has more than 100 decimals'
  when volume < 0 then format('volume %s is negative', volume)
  when vwap >= 1e30 or vwap < 0 then format('vwap %s is not a price', left(vwap::text, 40))
  -- More than these could not be added up in a candle.
  when trades < 0 or trades >= 100000000000 then format('%s trades', trades)
end;
comment on function bar_defect(text, timestamptz, numeric, numeric, numeric, numeric, numeric, numeric, bigint) is
  'What makes this bar impossible, in words; null for a possible bar.';

create or replace procedure tickstock.prepare_incoming()
language plpgsql
as $$
begin
  if to_regclass('pg_temp.incoming_bars') is null then
    create temp table incoming_bars (
      position bigint generated always as identity, symbol text, ts timestamptz,
      open numeric, high numeric, low numeric, close numeric, volume numeric, vwap numeric, trades bigint
    ) on commit delete rows;
  end if;
end $$;
comment on procedure tickstock.prepare_incoming() is
  'Makes this session''s temporary table incoming_bars, in which bars wait for merge_incoming(). It empties itself at each commit.';

create or replace function tickstock.merge_incoming(source text, out received bigint, out inserted bigint,
                                                    out replaced bigint, out unchanged bigint, out refused bigint,
                                                    out refused_rows bigint[])
language plpgsql
as $$
declare
  first_position bigint;
begin
  -- drop_bars() waits for us, or we for it: what is refused now must be all that is.
  lock table public.ohlcv_1min in row exclusive mode;
  perform set_config('tickstock.source', source, true);
  select count(*), min(position) into received, first_position from pg_temp.incoming_bars;

  with bad as (
    delete from pg_temp.incoming_bars i
    where public.bar_defect(i.symbol, i.ts, i.open, i.high, i.low, i.close, i.volume, i.vwap, i.trades) is not null
    returning i.*
  ), kept as (
    insert into public.refused_bars (source, reason, payload)
    select merge_incoming.source,
      public.bar_defect(b.symbol, b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades),
      left((to_jsonb(b) - 'position')::text, 2000)
    from bad b order by b.position
  )
  select count(*), array_agg(b.position - first_position) into refused, refused_rows from bad b;

  with latest as (
    -- Of two versions of one bar the later one counts.
    select distinct on (i.symbol, i.ts) i.* from pg_temp.incoming_bars i order by i.symbol, i.ts, i.position desc
  ), written as (
    -- In the order of the key: concurrent writers take their locks in one order.
    insert into public.ohlcv_1min as b (symbol, ts, open, high, low, close, volume, vwap, trades)
    select l.symbol, l.ts, l.open, l.high, l.low, l.close, l.volume, l.vwap, l.trades from latest l order by l.symbol, l.ts
    on conflict on constraint ohlcv_1min_pkey do update set
      open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
      -- Sources complete each other: the feed has no trade count, flat files have no vwap.
      vwap = case when (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume) = (b.open, b.high, b.low, b.close, b.volume)
             then coalesce(excluded.vwap, b.vwap) else excluded.vwap end,
      trades = case when (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume) = (b.open, b.high, b.low, b.close, b.volume)
               then coalesce(excluded.trades, b.trades) else excluded.trades end
    where (b.open, b.high, b.low, b.close, b.volume) is distinct from
          (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
      or b.vwap is distinct from coalesce(excluded.vwap, b.vwap) or b.trades is distinct from coalesce(excluded.trades, b.trades)
    returning (b.xmax = 0) as is_new
  )
  select count(*) filter (where is_new), count(*) filter (where not is_new) into inserted, replaced from written;
  unchanged := received - refused - inserted - replaced;
end $$;
comment on function tickstock.merge_incoming(text) is
  'Moves incoming_bars into ohlcv_1min. A bar already there is replaced where it differs. received = inserted + replaced + unchanged + refused; impossible bars go to refused_bars, and refused_rows says which they were, counting from 0. Two versions in one batch: the earlier counts as unchanged.';
