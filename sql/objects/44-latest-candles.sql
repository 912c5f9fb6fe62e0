-- Cross-sections: each symbol's latest candle.

create or replace function latest_candles(timeframe text, since timestamptz default null) returns setof public.ohlcv_5min
language plpgsql stable rows 10000
as $$
declare
  width constant interval := (select t.width from public.timeframes t where t.timeframe = latest_candles.timeframe);
  latest constant timestamptz := public.latest_minute();
  earliest constant timestamptz := coalesce(since, public.candle_start(timeframe, latest - interval '7 days'));
begin
  if width is null then
    raise exception 'the latest candles of the timeframe %? There are %', quote_nullable(timeframe),
      (select string_agg(t.timeframe, ', ' order by t.position) from public.timeframes t)
      using errcode = 'invalid_parameter_value', hint = 'candles() makes any other width, one symbol at a time.';
  end if;
  return query execute format($q$
    -- Most symbols have traded just now: these together, the others one by one.
    with fresh as materialized (
      select distinct on (o.symbol) %3$s from public.ohlcv_%1$s o where o.ts >= $2 order by o.symbol, o.ts desc
    ),
    -- Each bar lies in a 4hour candle, or in a marked half hour.
    active as materialized (
      select c.symbol from tickstock.candles_4hour c where c.ts >= $3
      union select d.symbol from tickstock.dirty d where d.granule >= $1
    )
    select * from fresh
    union all
    select o.* from active s
    -- Of the last materialized candles at most the marked ones are gone, %2$s in a half hour.
    cross join lateral (
      select coalesce((
        select m.ts from tickstock.candles_%1$s m where m.symbol = s.symbol and m.ts >= $1 order by m.ts desc
        offset %2$s * (select count(distinct d.granule) from tickstock.dirty d where d.symbol = s.symbol and d.granule >= $1) limit 1), $1) as since) b
    cross join lateral (
      select %3$s from public.ohlcv_%1$s o where o.symbol = s.symbol and o.ts >= b.since and o.ts >= $1 order by o.ts desc limit 1) o
    where not exists (select from fresh f where f.symbol = s.symbol)
    order by symbol $q$,
    timeframe, case timeframe when '1min' then 0 else greatest(1, (extract(epoch from interval '30 minutes') / extract(epoch from width))::integer) end,
    -- Bars have a column more than candles.
    'o.symbol, o.ts, o.open, o.high, o.low, o.close, o.volume, o.vwap, o.trades, o.bars, o.session, o.complete')
  -- The day before is taken here: in a plan TimescaleDB takes "no chunk" from -infinity less a day.
  using earliest, greatest(earliest, public.candle_start(timeframe, latest - width)), earliest - interval '1 day';
end $$;
comment on function latest_candles(text, timestamptz) is
  'The latest candle of each symbol, by symbol, of those that begin at or after since. since null: the feed''s last seven days. Example: select symbol, close from latest_candles(''5min'') where complete.';
