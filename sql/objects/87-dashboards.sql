-- What dashboards ask that would be long there. See grafana/ and docs/grafana.md.

create or replace function active_symbols(since timestamptz default null) returns table (symbol text)
language sql stable
begin atomic
  with time as (
    select coalesce(since, public.feed_clock() - interval '31 days') as since
  )
  -- A row a month and symbol; and those whose first bars are not in candles yet.
  select c.symbol from tickstock.candles_monthly c where c.ts >= (select public.candle_start('monthly', t.since) from time t)
  union
  select d.symbol from tickstock.dirty d where d.granule >= (select public.candle_start('30min', t.since) from time t)
  order by 1;
end;
comment on function active_symbols(timestamptz) is
  'The symbols that have traded in a regular session since the beginning of this month (New York), and those with changes that are not refreshed yet, in order. since null: the feed''s last 31 days. Example: select symbol from active_symbols().';

create or replace function owed_by_hour(since timestamptz, until timestamptz)
returns table (day date, hour integer, owed_minutes bigint)
language sql stable
begin atomic
  with gap as materialized (
    -- After an outage thousands of symbols owe the same stretch.
    select g.starts, g.ends, count(*) as symbols from public.feed_gaps g
    where g.starts < owed_by_hour.until and g.ends > owed_by_hour.since group by g.starts, g.ends
  ), traded as materialized (
    select s.day, min(s.starts) as starts, least(max(s.ends), public.feed_clock()) as ends from public.sessions s
    where s.day between (owed_by_hour.since at time zone 'America/New_York')::date and (owed_by_hour.until at time zone 'America/New_York')::date
    group by s.day
  ), place as (
    select d.day::date, h.hour, greatest(t.starts, c.starts) as starts,
      case when t.day is not null then least(t.ends, c.starts + interval '1 hour') end as ends
    from generate_series((owed_by_hour.since at time zone 'America/New_York')::date::timestamp,
                         (owed_by_hour.until at time zone 'America/New_York')::date::timestamp, interval '1 day') d (day)
    cross join generate_series(4, 19) h (hour)
    cross join lateral (select (d.day + make_interval(hours => h.hour)) at time zone 'America/New_York' as starts) c
    left join traded t on t.day = d.day::date
  )
  select p.day, p.hour, case when p.starts < p.ends then (
      select coalesce(sum(g.symbols * extract(epoch from least(g.ends, p.ends) - greatest(g.starts, p.starts)) / 60), 0)::bigint
      from gap g where g.starts < p.ends and g.ends > p.starts) end
  from place p
  order by p.day, p.hour;
end;
comment on function owed_by_hour(timestamptz, timestamptz) is
  'What the feed owes (feed_gaps), by day and hour of New York: minutes within sessions, of all symbols together (* counts as one). Every day from since to until has its hours from 4 to 19; owed_minutes is null where the market was closed, or the feed''s clock has not come. Example: select * from owed_by_hour(feed_clock() - interval ''7 days'', feed_clock()) where owed_minutes > 0.';
