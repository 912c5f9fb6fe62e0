-- On the community edition candles are materialized into continuous aggregates, one upon the other.
-- They are materialized_only: what has changed since their last refresh comes from the live half of
-- the views (sql/objects/40-candles.sql), so that late and corrected bars show at once.
-- A sum over a column that some bars do not tell (vwap, trades) is unknown, not partial.

create materialized view tickstock.candles_5min
with (timescaledb.continuous, timescaledb.materialized_only = true) as
select symbol, time_bucket('5 minutes', ts) as ts,
  first(open, ts) as open, max(high) as high, min(low) as low, last(close, ts) as close,
  sum(volume) as volume,
  case when count(*) = count(vwap) then sum(vwap * volume) end as turnover,
  case when count(*) = count(trades) then sum(trades)::bigint end as trades,
  count(*)::integer as bars
from ohlcv_1min
group by 1, 2
with no data;

do $$
declare
  level record;
begin
  for level in
    select * from (values
      (1, '15min',   '5min',  $q$time_bucket('15 minutes', c.ts)$q$),
      (2, '30min',   '15min', $q$time_bucket('30 minutes', c.ts)$q$),
      (3, '1hour',   '30min', $q$time_bucket('1 hour', c.ts)$q$),
      (4, '4hour',   '1hour', $q$time_bucket('4 hours', c.ts, 'America/New_York')$q$),
      (5, 'daily',   '30min', $q$time_bucket('1 day', c.ts, 'America/New_York')$q$),
      (6, 'weekly',  'daily', $q$time_bucket('7 days', c.ts, 'America/New_York')$q$),
      (7, 'monthly', 'daily', $q$time_bucket('1 month', c.ts, 'America/New_York')$q$)
    ) as v (position, timeframe, source, bucket) order by position
  loop
    execute format($q$
      create materialized view tickstock.candles_%s
      with (timescaledb.continuous, timescaledb.materialized_only = true) as
      select c.symbol, %s as ts,
        first(c.open, c.ts) as open, max(c.high) as high, min(c.low) as low, last(c.close, c.ts) as close,
        sum(c.volume) as volume,
        case when count(*) = count(c.turnover) then sum(c.turnover) end as turnover,
        case when count(*) = count(c.trades) then sum(c.trades)::bigint end as trades,
        sum(c.bars)::integer as bars
      from tickstock.candles_%s c %s
      group by 1, 2
      with no data $q$,
      level.timeframe, level.bucket, level.source,
      -- A day is its regular session: the half hours between open and close.
      case level.timeframe when 'daily' then
        $q$join trading_days d on d.day = (c.ts at time zone 'America/New_York')::date
           and c.ts >= d.opens_at and c.ts < d.closes_at$q$
      else '' end);
  end loop;
end $$;

do $$
declare
  tf text;
begin
  for tf in select timeframe from timeframes where timeframe <> '1min' loop
    execute format('comment on view tickstock.candles_%s is %L', tf,
      'Materialized candles. Stale where tickstock.dirty says so: read ohlcv_' || tf || ' instead.');
  end loop;
end $$;
