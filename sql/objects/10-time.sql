-- Time: where candles begin and end, which engine this is, and what the feed's clock says.
-- Intraday candles up to an hour begin on the clock (New York is whole hours away from UTC, so the
-- clock is the same); larger ones are counted in New York local time and given in UTC.

create or replace function candle_start(timeframe text, ts timestamptz) returns timestamptz
language sql immutable parallel safe
return case timeframe
  when '1min' then date_bin('1 minute', ts, '2000-01-03 00:00+00')
  when '5min' then date_bin('5 minutes', ts, '2000-01-03 00:00+00')
  when '15min' then date_bin('15 minutes', ts, '2000-01-03 00:00+00')
  when '30min' then date_bin('30 minutes', ts, '2000-01-03 00:00+00')
  when '1hour' then date_bin('1 hour', ts, '2000-01-03 00:00+00')
  when '4hour' then date_bin('4 hours', ts at time zone 'America/New_York', '2000-01-03') at time zone 'America/New_York'
  when 'daily' then date_trunc('day', ts at time zone 'America/New_York') at time zone 'America/New_York'
  when 'weekly' then date_trunc('week', ts at time zone 'America/New_York') at time zone 'America/New_York'
  when 'monthly' then date_trunc('month', ts at time zone 'America/New_York') at time zone 'America/New_York'
end;
comment on function candle_start(text, timestamptz) is
  'Start of the candle that holds this moment, UTC; null for an unknown timeframe. Example: select candle_start(''4hour'', now()).';

-- By way of UTC, for timestamptz + interval is not immutable, and would keep this from being inlined.
create or replace function candle_end(timeframe text, starts timestamptz) returns timestamptz
language sql immutable parallel safe
return case timeframe
  when '1min' then (starts at time zone 'UTC' + interval '1 minute') at time zone 'UTC'
  when '5min' then (starts at time zone 'UTC' + interval '5 minutes') at time zone 'UTC'
  when '15min' then (starts at time zone 'UTC' + interval '15 minutes') at time zone 'UTC'
  when '30min' then (starts at time zone 'UTC' + interval '30 minutes') at time zone 'UTC'
  when '1hour' then (starts at time zone 'UTC' + interval '1 hour') at time zone 'UTC'
  when '4hour' then (starts at time zone 'America/New_York' + interval '4 hours') at time zone 'America/New_York'
  when 'daily' then (starts at time zone 'America/New_York' + interval '1 day') at time zone 'America/New_York'
  when 'weekly' then (starts at time zone 'America/New_York' + interval '7 days') at time zone 'America/New_York'
  when 'monthly' then (starts at time zone 'America/New_York' + interval '1 month') at time zone 'America/New_York'
end;
comment on function candle_end(text, timestamptz) is
  'End (exclusive) of the candle that begins at this moment, UTC: the start of the next one.';

-- plpgsql here and below: what looks something up is not inlined, and is planned once in a session, not with each query.
create or replace function candle_complete_at(timeframe text, starts timestamptz) returns timestamptz
language plpgsql stable parallel safe
as $$
begin
  if timeframe in ('daily', 'weekly', 'monthly') then
    return coalesce(
      (select max(closes_at) from public.trading_days
       where day >= (starts at time zone 'America/New_York')::date
         and day < (public.candle_end(timeframe, starts) at time zone 'America/New_York')::date),
      public.candle_end(timeframe, starts));
  end if;
  return public.candle_end(timeframe, starts);  -- by itself: no query is begun for it
end $$;
comment on function candle_complete_at(text, timestamptz) is
  'The moment from which no further bar can enter this candle, UTC: its end, or the close of its last regular session.';

-- Not planned together with the query that calls it: see tickstock.recent_since().
create or replace function tickstock.latest_of_old_bars() returns timestamptz
language plpgsql stable parallel safe
as $$
begin
  return (select max(ts) from public.ohlcv_1min);
end $$;
comment on function tickstock.latest_of_old_bars() is
  'Start of the latest minute of which a bar is stored, when it lies before tickstock.recent_since(), UTC.';

create or replace function latest_minute() returns timestamptz
language plpgsql stable parallel safe
as $$
begin
  return coalesce((select max(ts) from public.ohlcv_1min where ts >= tickstock.recent_since()), tickstock.latest_of_old_bars());
end $$;
comment on function latest_minute() is
  'Start of the latest minute of which a bar is stored, UTC; null while there is none. A candle is complete when it ends at or before this moment.';

create or replace function tickstock.complete_until(timeframe text) returns timestamptz
language plpgsql stable parallel safe
as $$
declare
  clock constant timestamptz := public.latest_minute();
  starts constant timestamptz := public.candle_start(timeframe, clock);
begin
  return coalesce(case when public.candle_complete_at(timeframe, starts) <= clock then starts else starts - interval '1 microsecond' end,
    'infinity');
end $$;
comment on function tickstock.complete_until(text) is
  'Candles of the timeframe that begin up to then are complete by the feed''s clock, later ones are not; infinity while there are no bars.';

create or replace function feed_clock() returns timestamptz
language sql stable parallel safe
return public.latest_minute() + interval '1 minute';
comment on function feed_clock() is
  'What time it is in the feed: the end of the latest minute of which a bar is stored, UTC. Runs behind for a delayed feed, and through the past in a replay.';

-- plpgsql, since the setting and the extension need not be there.
create or replace function tickstock_engine() returns text
language plpgsql stable parallel safe
as $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'timescaledb') then
    return 'postgres';
  elsif pg_catalog.current_setting('timescaledb.license', true) = 'timescale' then
    return 'community';
  end if;
  return 'apache';
end $$;
comment on function tickstock_engine() is
  'The engine below: community (TimescaleDB with its Timescale-licensed features), apache (TimescaleDB''s Apache-2 edition) or postgres (no extension).';
