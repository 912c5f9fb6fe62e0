-- How it goes: what `tickstock status` tells, for those who ask in SQL.

create or replace function tickstock.count_bars(starts timestamptz, ends timestamptz) returns bigint
language plpgsql stable
as $$
declare
  bars bigint;
begin
  -- Planned with these times at hand, so that only their chunk is looked at.
  execute 'select count(*) from public.ohlcv_1min where ts >= $1 and ts < $2' into bars using starts, ends;
  return bars;
end $$;
comment on function tickstock.count_bars(timestamptz, timestamptz) is 'How many minute bars begin from starts up to, not including, ends.';

create or replace view feed_status as
select f.feed_clock, now() - f.feed_clock as lag, session_of(now()) as session,
  l.subscriptions, l.symbols,
  tickstock.count_bars(f.feed_clock - interval '5 minutes', f.feed_clock) as bars_in_5_minutes,
  (select max(ts) from minutes_complete) as latest_complete,
  g.gaps, g.owed_minutes,
  f.dirty_half_hours, f.candles_to_scan, f.events_to_publish, f.refused_today,
  l.frames_waiting, l.spilled_bytes, l.stored_after
from tickstock.freshness f
cross join (
  select count(*)::integer as subscriptions, case when bool_and(symbols is not null) then coalesce(sum(cardinality(symbols)), 0)::integer end as symbols,
    sum(frames_waiting)::bigint as frames_waiting, sum(spilled_bytes)::bigint as spilled_bytes, max(stored_after) as stored_after
  from feed_live where alive
) l
cross join (select count(*)::integer as gaps, coalesce(sum(minutes), 0)::bigint as owed_minutes from feed_gaps) g;
comment on view feed_status is
  'One row: how the feed is doing now, and what waits. Each symbol: symbol_status(). Example: select feed_clock, lag, subscriptions, owed_minutes from feed_status.';
comment on column feed_status.feed_clock is 'The end of the latest minute of which a bar is stored, UTC.';
comment on column feed_status.lag is 'How far feed_clock is behind the wall clock: large when the market is closed, and in a replay.';
comment on column feed_status.session is 'The session by the wall clock: pre, regular, after or closed.';
comment on column feed_status.subscriptions is 'Live subscriptions that are being written at this moment; 0: no ingest is connected.';
comment on column feed_status.symbols is 'Symbols subscribed by them; null: all.';
comment on column feed_status.bars_in_5_minutes is 'Bars of the last five minutes before feed_clock.';
comment on column feed_status.latest_complete is 'Start of the latest minute that is complete, as in minutes_complete, UTC.';
comment on column feed_status.gaps is 'Stretches that the feed still owes, as in feed_gaps.';
comment on column feed_status.owed_minutes is 'Their minutes, of all symbols together.';
comment on column feed_status.dirty_half_hours is 'Half hours of a symbol whose candles are computed at each query until the next refresh.';
comment on column feed_status.candles_to_scan is 'Candles that wait for a scanner, those still forming included.';
comment on column feed_status.events_to_publish is 'Events that wait for Redis.';
comment on column feed_status.refused_today is 'What was refused in the last 24 hours.';
comment on column feed_status.frames_waiting is 'Frames that the live ingests had received but not stored when they last stored bars; null: none has stored any.';
comment on column feed_status.spilled_bytes is 'Bytes in their spill files that were not stored at that time.';
comment on column feed_status.stored_after is 'How long after its receipt the oldest bar of that batch was stored; with several ingests, the longest.';

create or replace function symbol_status(symbols text[] default null)
returns table (symbol text, last_bar timestamptz, lag interval, bars integer, expected integer, owed_minutes integer)
language plpgsql stable rows 10000
as $$
declare
  clock constant timestamptz := public.feed_clock();
  today constant date := (clock at time zone 'America/New_York')::date;
  minutes_so_far integer;
begin
  select coalesce(sum(extract(epoch from p.ends - p.starts) / 60), 0)::integer into minutes_so_far
  from tickstock.passed_sessions(today, today) p where clock is not null;
  -- Planned with these times at hand, so that only their chunks are looked at.
  return query execute $q$
    with latest as materialized (
      select l.symbol, l.ts from public.latest_candles('1min') l where $1 is null or l.symbol = any ($1)
    ), counted as materialized (
      -- Candles count their bars: a thirtieth of the rows.
      select o.symbol, sum(o.bars)::integer as bars from public.ohlcv_30min o
      where o.ts >= $3 and o.ts < $4 and ($1 is null or o.symbol = any ($1)) group by o.symbol
    ), owed as materialized (
      select g.symbol, sum(g.minutes)::integer as minutes from public.feed_gaps g group by g.symbol
    )
    select s.symbol, l.ts, $2 - (l.ts + interval '1 minute'), coalesce(c.bars, 0), $5,
      coalesce(w.minutes, 0) + coalesce((select a.minutes from owed a where a.symbol = '*'), 0)
    from (
      select unnest($1) as symbol
      union select l.symbol from latest l
      union select unnest(f.symbols) from public.feed_live f where f.alive and $1 is null
    ) s
    left join latest l on l.symbol = s.symbol
    left join counted c on c.symbol = s.symbol
    left join owed w on w.symbol = s.symbol
    order by s.symbol $q$
  using symbols, clock, today::timestamp at time zone 'America/New_York', (today + 1)::timestamp at time zone 'America/New_York', minutes_so_far;
end $$;
comment on function symbol_status(text[]) is
  'How each symbol is doing: its last bar (start, UTC, of the last seven days; null: none), its lag behind the feed''s clock, its bars of the feed''s present day, the minutes expected by the calendar so far (few symbols trade in each), and the minutes that the feed owes of it. symbols null: all that had a bar or are subscribed by name. Example: select symbol, lag from symbol_status() where lag > ''10 minutes''.';
