-- Materializing dirty candles one by one, and only those: each timeframe from the materialized candles of
-- the one it is made of. Where these are stale they are marked, and the mark hits what is made of them, too.

create or replace view tickstock.candles_1min as
select symbol, ts, open, high, low, close, volume, vwap * volume as turnover, trades, bars from public.ohlcv_1min;
comment on view tickstock.candles_1min is 'Minute bars in the form of materialized candles.';

-- Up to version 0.1 it took the unit, too.
drop function if exists tickstock.rematerialize(text, text, text[], timestamptz[]);
create or replace function tickstock.rematerialize(timeframe text, symbols text[], granules timestamptz[])
returns void
language plpgsql
set datestyle = 'ISO'  -- as in tickstock.move_recent(): the times are put into statements
as $$
declare
  -- The table, or what holds the rows of the continuous aggregate.
  target regclass := (select s.stored_in from tickstock.storage s where s.relation = 'ohlcv_' || rematerialize.timeframe);
  source text := (select t.made_from from public.timeframes t where t.timeframe = rematerialize.timeframe);
  -- What is made at once: a candle, or those of a half hour, since that is what a mark tells of.
  unit text := case when timeframe in ('5min', '15min') then '30min' else timeframe end;
  -- Of a day only its regular session counts.
  edge text := case timeframe when 'daily'
    then '(select %I from public.trading_days where day = (u.starts at time zone ''America/New_York'')::date)' else 'u.%I' end;
  units text := format($q$
    unit as materialized (
      select u.symbol, u.starts, public.candle_end(%1$L, u.starts) as ends
      from (select distinct m.symbol, public.candle_start(%1$L, m.granule) as starts from unnest($1, $2) m (symbol, granule)) u
      order by 1, 2
    )$q$, unit);
  since timestamptz := public.candle_start(unit, (select min(g) from unnest(granules) g));
  until timestamptz := public.candle_end(unit, public.candle_start(unit, (select max(g) from unnest(granules) g)));
  -- Known to the planner: chunks that hold nothing of all this.
  within text := format('m.ts >= %L and m.ts < %L', since, until);
  columns text := 'symbol, ts, open, high, low, close, volume, turnover, trades, bars';
  -- All timeframes have the columns of this one.
  stored tickstock.candles_5min[];
  fresh tickstock.candles_5min[];
  changed tickstock.candles_5min[];
  gone tickstock.candles_5min[];
  added tickstock.candles_5min[];
begin
  -- Unit by unit, each by the index: no plan for one unit is bad for fifty thousand, or the other way round.
  execute format($q$
    with %s
    select array_agg(row(u.symbol, c.*)::tickstock.candles_5min) from unit u cross join lateral (
      select public.candle_start(%L, p.ts), (array_agg(p.open order by p.ts))[1], max(p.high), min(p.low),
        (array_agg(p.close order by p.ts))[count(*)], sum(p.volume),
        case when count(*) = count(p.turnover) then sum(p.turnover) end,
        case when count(*) = count(p.trades) then sum(p.trades)::bigint end, sum(p.bars)::integer
      from (select * from tickstock.candles_%s m where m.symbol = u.symbol and m.ts >= %s and m.ts < %s and %s
            order by m.ts offset 0) p
      group by 1) c
    $q$, units, timeframe, source,
    format(edge, case timeframe when 'daily' then 'opens_at' else 'starts' end),
    format(edge, case timeframe when 'daily' then 'closes_at' else 'ends' end), within)
  into fresh using symbols, granules;
  execute format($q$
    with %s
    select array_agg(m.candle) from unit u cross join lateral (
      select row(%s)::tickstock.candles_5min as candle from %s m
      where m.symbol = u.symbol and m.ts >= u.starts and m.ts < u.ends and %s offset 0) m
    $q$, units, columns, target, within)
  into stored using symbols, granules;

  select array_agg(f) filter (where s.symbol is null), array_agg(f) filter (where f.symbol = s.symbol),
    array_agg(s) filter (where f.symbol is null)
  into added, changed, gone
  from unnest(fresh) f full join unnest(stored) s on s.symbol = f.symbol and s.ts = f.ts
  where f is distinct from s;
  -- Not ON CONFLICT, for what holds the rows of a continuous aggregate has no unique key. And not all in
  -- one statement: of two that take rows out of the columnstore in one, the second does not find them.
  if changed is not null then
    execute format('update %s m set (%s) = (%s) from unnest($1) f where m.symbol = f.symbol and m.ts = f.ts and %s',
      target, columns, 'f.' || replace(columns, ', ', ', f.'), within) using changed;
  end if;
  if gone is not null then
    execute format('delete from %s m using unnest($1) g where m.symbol = g.symbol and m.ts = g.ts and %s', target, within) using gone;
  end if;
  if added is not null then
    execute format('insert into %s (%s) select %2$s from unnest($1)', target, columns) using added;
    -- The first half hour of thousands of symbols, in a table that knows of a few: the next timeframe is made of
    -- them, and would go through all symbols for each.
    if cardinality(added) > 10000 and cardinality(added) > (select c.reltuples from pg_catalog.pg_class c where c.oid = target) then
      execute format('analyze %s (symbol, ts)', target);
    end if;
  end if;
end $$;
comment on function tickstock.rematerialize(text, text[], timestamptz[]) is
  'Computes the candles of one timeframe that these half hours touch, and stores what differs. Shorter timeframes come first. Only under the refresher''s lock.';

create or replace function tickstock.refresh_batch(up_to timestamptz, newest bigint, most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  taken_symbols text[];
  taken_granules timestamptz[];
  taken bigint;
begin
  -- One refresher at a time: another one's older snapshot must not overwrite newer candles.
  perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));
  -- Marks are deleted first, before anything is read: a bar that comes in later leaves a mark that
  -- stays, and keeps its candles live. For everybody else all this happens at the commit.
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
  perform tickstock.rematerialize(t.timeframe, taken_symbols, taken_granules)
    from (select timeframe from public.timeframes where timeframe <> '1min' order by position) t;
  return taken;
end $$;
comment on function tickstock.refresh_batch(timestamptz, bigint, integer) is
  'Refreshes up to that many marks, none newer than newest, whose half hours begin before up_to; returns how many there were.';
