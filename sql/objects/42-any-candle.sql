-- Candles of any width, by the function candles(). They are made of the largest exact relation that fits
-- into them, so they are as exact as the views. The statement is made and planned with each call, with
-- the times at hand: only their chunks are looked at. Not so where the timeframe has a view.
--
-- A frame is how candles are counted:
--   midnight  minutes, counted from New York midnight by a stopwatch
--   local     several hours, days, weeks: counted on New York's clocks from Monday, 2000-01-03
--   months    counted from January 2000
--   opening   of the regular session only: counted from its opening; the last one ends with the close

-- One function a timeframe, planned once in a session: to plan its view takes longer than to read it.
do $$
declare
  tf text;
begin
  for tf in select timeframe from timeframes where timeframe <> '1min' loop
    execute format($q$
      create or replace function tickstock.read_%1$s(of_symbol text, since timestamptz, until timestamptz, most integer)
      returns setof public.ohlcv_%1$s
      language plpgsql stable rows 300
      -- The plan may be older than most rows: it must not be one for tables that are empty.
      set plan_cache_mode = force_generic_plan set enable_seqscan = off
      as $f$
      begin
        return query select * from public.ohlcv_%1$s o
          where o.symbol = of_symbol and o.ts >= since and o.ts < until order by o.ts desc limit most;
      end $f$ $q$, tf);
    execute format('comment on function tickstock.read_%s(text, timestamptz, timestamptz, integer) is %L', tf,
      format('%s candles of a symbol that begin at or after since and before until, newest first, at most so many (null: all).', tf));
  end loop;
end $$;

create or replace function tickstock.frame_start(frame text, width interval, ts timestamptz, opens_at timestamptz) returns timestamptz
language sql stable parallel safe
return case frame
  when 'midnight' then date_bin(width, ts, date_trunc('day', ts, 'America/New_York'))
  when 'local' then date_bin(width, ts at time zone 'America/New_York', '2000-01-03') at time zone 'America/New_York'
  when 'months' then (timestamp '2000-01-01' + width * floor(
      ((extract(year from ts at time zone 'America/New_York') - 2000) * 12 + extract(month from ts at time zone 'America/New_York') - 1)
      / (extract(year from width) * 12 + extract(month from width)))::float8) at time zone 'America/New_York'
  when 'opening' then date_bin(width, ts, opens_at)
end;
comment on function tickstock.frame_start(text, interval, timestamptz, timestamptz) is
  'Start of the candle that holds this moment. opens_at: the opening of its day, for the frame opening.';

create or replace function tickstock.frame_end(frame text, width interval, starts timestamptz) returns timestamptz
language sql stable parallel safe
return case
  when frame = 'midnight' then least(starts + width,
    (date_trunc('day', starts at time zone 'America/New_York') + interval '1 day') at time zone 'America/New_York')
  when frame = 'opening' then starts + width
  -- Where the clocks are put forward, one that begins at two does so at three.
  when frame = 'local' then (date_bin(width, starts at time zone 'America/New_York', '2000-01-03') + width) at time zone 'America/New_York'
  else (starts at time zone 'America/New_York' + width) at time zone 'America/New_York'
end;
comment on function tickstock.frame_end(text, interval, timestamptz) is
  'End (exclusive) of the candle that begins at this moment, whatever the calendar says.';

create or replace function tickstock.frame_sessions_over(frame text, width interval, starts timestamptz, latest timestamptz) returns boolean
language sql stable parallel safe
return (frame = 'opening' or width >= interval '1 day') and not exists (
  select from public.trading_days d
  where d.day between (starts at time zone 'America/New_York')::date
                  and (tickstock.frame_end(frame, width, starts) at time zone 'America/New_York')::date
    and d.opens_at < tickstock.frame_end(frame, width, starts) and d.closes_at > greatest(starts, latest));
comment on function tickstock.frame_sessions_over(text, interval, timestamptz, timestamptz) is
  'Whether the candle that begins at starts is made of regular sessions, the last of which has closed.';

create or replace function tickstock.frame_complete(frame text, width interval, starts timestamptz, latest timestamptz) returns boolean
language sql stable parallel safe
-- The feed sends minutes when they are over. Of the others only the last ones ask the calendar.
return (width = interval '1 minute' or tickstock.frame_end(frame, width, starts) <= latest
        or tickstock.frame_sessions_over(frame, width, starts, latest)) is not false;
comment on function tickstock.frame_complete(text, interval, timestamptz, timestamptz) is
  'Whether no further bar is expected in the candle that begins at starts. latest: as latest_minute().';

create or replace function tickstock.frame_session(frame text, width interval, starts timestamptz) returns text
language sql stable parallel safe
return case
  when frame = 'opening' or width >= interval '1 day' then 'regular'
  -- Sessions begin and end on half hours.
  when frame = 'midnight' and mod(1800, extract(epoch from width)) = 0 then public.session_of(starts)
  -- No candle holds two nights: where it begins and ends in one session, it is in it.
  when public.session_of(starts) = public.session_of(tickstock.frame_end(frame, width, starts) - interval '1 minute')
    then public.session_of(starts)
end;
comment on function tickstock.frame_session(text, interval, timestamptz) is
  'The session that the candle lies in; null where it lies in more than one.';

create or replace function tickstock.frame_of(timeframe text, sessions text,
                                              out frame text, out width interval, out source text, out is_source boolean)
language plpgsql stable
as $$
declare
  months integer;
  days integer;
  minutes numeric;
begin
  if sessions is null or sessions not in ('all', 'regular') then
    raise exception 'candles of the sessions %? There are all (pre-market and after-hours too) and regular', quote_nullable(sessions)
      using errcode = 'invalid_parameter_value';
  end if;
  begin
    width := coalesce((select t.width from public.timeframes t where t.timeframe = frame_of.timeframe),
                      justify_hours(frame_of.timeframe::interval));
    months := extract(year from width) * 12 + extract(month from width);
    days := extract(day from width);
    minutes := extract(epoch from width - make_interval(months => months, days => days)) / 60;
  exception when data_exception or feature_not_supported then
    null;  -- not an interval, or an infinite one: told below
  end;
  case
    -- 1M is a minute to PostgreSQL, and a month to traders; 60 is a minute (of seconds), and on charts an hour.
    when timeframe ~ '([0-9]\s*M|^\s*[0-9.]+)\s*$' or width > interval '100 years' then
      null;
    when months > 0 and days = 0 and minutes = 0 then
      frame := 'months';
      source := 'monthly';
    when months = 0 and days > 0 and minutes = 0 then
      frame := 'local';
      source := case when mod(days, 7) = 0 then 'weekly' else 'daily' end;
    when months = 0 and days = 0 and minutes >= 1 and mod(minutes, 1) = 0
         and (mod(1440, minutes) = 0 or sessions = 'regular' and mod(390, minutes) = 0) then
      frame := case when sessions = 'regular' then 'opening' when minutes > 60 and mod(minutes, 60) = 0 then 'local' else 'midnight' end;
      source := case when sessions = 'all' and mod(minutes, 240) = 0 then '4hour'
                     when sessions = 'all' and mod(minutes, 60) = 0 then '1hour'
                     when mod(minutes, 30) = 0 then '30min' when mod(minutes, 15) = 0 then '15min'
                     when mod(minutes, 5) = 0 then '5min' else '1min' end;
    else
      null;
  end case;
  if source is null then
    raise exception 'there are no candles of the width %', quote_nullable(timeframe)
      using errcode = 'invalid_parameter_value', hint =
        'Possible are the names in the table timeframes; minutes or hours that divide a day, such as 10 minutes or 2 hours '
        '(with sessions ''regular'' also 65, 78, 130 and 195 minutes, which divide 6.5 hours); '
        'and days, weeks, months or years, up to a hundred years.';
  end if;
  is_source := width = (select t.width from public.timeframes t where t.timeframe = source);
end $$;
comment on function tickstock.frame_of(text, text) is
  'How candles of this timeframe and these sessions are counted: frame and width, the timeframe they are made of, and whether they are its candles already. An error where there are none such.';

create or replace function tickstock.candles_query(timeframe text, sessions text) returns text
language plpgsql stable
as $$
declare
  f record := tickstock.frame_of(timeframe, sessions);
begin
  if f.is_source then
    return format('select symbol, ts, open, high, low, close, volume, vwap, trades, bars, session, complete from %s %s',
      case f.source when '1min' then '(select * from public.ohlcv_1min where symbol = $1 and ts >= $2 and ts < $3) o'
        else format('tickstock.read_%s($1, $2, $3, %s)', f.source, case f.frame when 'opening' then 'null' else '$6' end) end,
      case f.frame when 'opening' then $q$where session = 'regular'$q$ else '' end);
  end if;
  return format($q$
    select c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.turnover / nullif(c.volume, 0) as vwap, c.trades, c.bars,
      tickstock.frame_session(%1$L, %2$L, c.ts) as session, tickstock.frame_complete(%1$L, %2$L, c.ts, $4) as complete
    from (
      select p.symbol, p.starts as ts,
        (array_agg(p.open order by p.ts))[1] as open, max(p.high) as high, min(p.low) as low, (array_agg(p.close order by p.ts desc))[1] as close,
        sum(p.volume) as volume, case when count(*) = count(p.turnover) then sum(p.turnover) end as turnover,
        case when count(*) = count(p.trades) then sum(p.trades)::bigint end as trades, sum(p.bars)::integer as bars
      from (
        select e.*, tickstock.frame_start(%1$L, %2$L, e.ts, %3$s) as starts
        from tickstock.%4$s e %5$s
        -- Whole candles: those that begin before $3 may end after it.
        where e.symbol = $1 and e.ts >= $2 and e.ts < ($3 at time zone 'America/New_York' + %2$L) at time zone 'America/New_York') p
      where p.starts >= $2 and p.starts < $3 %6$s
      group by p.symbol, p.starts) c $q$,
    f.frame, f.width, case f.frame when 'opening' then 'd.opens_at' else 'null' end,
    case f.source when '1min' then 'candles_1min' else 'exact_' || f.source end,
    case f.frame when 'opening' then $q$
        join public.trading_days d on d.day = (e.ts at time zone 'America/New_York')::date and e.ts >= d.opens_at and e.ts < d.closes_at
          and d.day >= ($2 at time zone 'America/New_York')::date and d.day <= ($3 at time zone 'America/New_York')::date $q$ else '' end,
    -- Of one that lost its first bars to drop_bars() the rest would pass for all of it.
    case f.source when '1min' then 'and p.starts >= tickstock.bars_since()' else '' end);
end $$;
comment on function tickstock.candles_query(text, text) is
  'The statement that makes candles of this timeframe and these sessions: $1 is the symbol; they begin at or after $2 and before $3. $4: as latest_minute(). $6: so many are enough, the newest ones.';

create or replace function tickstock.slots(frame text, width interval, since timestamptz, until timestamptz) returns setof timestamptz
language sql stable
begin atomic
  select distinct c.starts
  from (
    select min(s.starts) as starts, max(s.ends) - interval '1 minute' as last_minute,
      max(s.starts) filter (where s.session = 'regular') as opens_at
    from public.sessions s
    where (s.session = 'regular' or frame <> 'opening' and width < interval '1 day')
      and s.day >= (since at time zone 'America/New_York')::date
      and s.day <= least(until at time zone 'America/New_York' + width, public.latest_minute() at time zone 'America/New_York')::date
    group by s.day) t
  -- Steps of a candle's width, and the last minute, meet every candle of the day.
  cross join lateral generate_series(t.starts, case when width < interval '1 day' then t.last_minute + width else t.starts end, width) m (minute)
  cross join lateral (select tickstock.frame_start(frame, width, least(m.minute, t.last_minute), t.opens_at) as starts) c
  where c.starts >= since and c.starts < until and greatest(c.starts, t.starts) <= (select public.latest_minute());
end;
comment on function tickstock.slots(text, interval, timestamptz, timestamptz) is
  'Where candles of a frame could begin, at or after since and before until: those with a minute of a session that the feed''s clock has passed.';

create or replace function tickstock.filled_query(timeframe text, sessions text) returns text
language plpgsql stable
as $$
declare
  f record := tickstock.frame_of(timeframe, sessions);
begin
  return format($q$
    with candle as materialized (%3$s),
    line as (
      select coalesce(c.ts, s.ts) as ts, c as candle, count(c.ts) over (order by coalesce(c.ts, s.ts)) as nth
      from candle c
      full join tickstock.slots(%1$L, %2$L, greatest($2, (select min(ts) from candle)), $3) s (ts) on s.ts = c.ts
    ), filled as (
      select l.ts, l.candle, first_value((l.candle).close) over (partition by l.nth order by l.ts) as close
      from line l where l.nth > 0
    )
    select (f.candle).* from filled f where (f.candle).symbol is not null and f.ts >= $2
    union all
    select $1, f.ts, f.close, f.close, f.close, f.close, 0, null, 0, 0,
      tickstock.frame_session(%1$L, %2$L, f.ts), tickstock.frame_complete(%1$L, %2$L, f.ts, $4)
    from filled f where (f.candle).symbol is null $q$,
    f.frame, f.width, replace(tickstock.candles_query(timeframe, sessions), '$2', '$5'));
end $$;
comment on function tickstock.filled_query(text, text) is
  'As candles_query(), with the gaps filled, that at $2 from the candle before, which begins at $5.';

create or replace function tickstock.make_candles(of_symbol text, timeframe text, since timestamptz, until timestamptz, last integer,
                                                  sessions text, fill boolean) returns setof public.ohlcv_5min
language plpgsql stable
as $$
declare
  query constant text := case when fill then tickstock.filled_query(timeframe, sessions) else tickstock.candles_query(timeframe, sessions) end;
  width constant interval := (tickstock.frame_of(timeframe, sessions)).width;
  -- In which a liquid symbol has so many candles: bars of four hours a day, two trading days in three. With last null, or so large that
  -- an interval could not hold it, all time.
  span interval := interval '5 days' + least(case when last < 1000000 then last end * width * case when width < interval '1 day' then 6.0 else 1.5 end, interval '1000 years');
  latest constant timestamptz := public.latest_minute();
  starts timestamptz;
  ends timestamptz;
  reads_since timestamptz;
  candle_before timestamptz;
  returned bigint;
begin
  if last < 1 then
    raise exception 'the last % candles? Give last a number from 1 up, or leave it out', last using errcode = 'invalid_parameter_value';
  end if;
  -- Each bar lies in a 4hour candle, or in a marked half hour. (Greatest and least pass over nulls.)
  select least(min(c.ts), (select min(d.granule) from tickstock.dirty d where d.symbol = of_symbol)),
    greatest(max(c.ts), (select max(d.granule) from tickstock.dirty d where d.symbol = of_symbol))
  into starts, ends from tickstock.candles_4hour c where c.symbol = of_symbol;
  if starts is null then
    return;  -- no bars: since and until alone may be all time, in which no steps lead back
  end if;
  starts := greatest(since, starts - width - interval '1 day');
  ends := least(until, case when fill then latest + interval '1 minute' else ends + interval '1 day' end);
  -- Backwards, in ever larger steps.
  while starts < ends and last is distinct from 0 loop
    reads_since := greatest(starts, ends - span);
    if fill then
      candle_before := (select b.ts from tickstock.make_candles(of_symbol, timeframe, null, reads_since, 1, sessions, false) b);
    end if;
    return query execute query || ' order by ts desc limit $6'
      using of_symbol, reads_since, ends, latest, coalesce(candle_before, reads_since), last;
    get diagnostics returned = row_count;
    last := last - returned;
    ends := reads_since;
    span := 8 * span;
  end loop;
end $$;
comment on function tickstock.make_candles(text, text, timestamptz, timestamptz, integer, text, boolean) is
  'What candles() returns, but for the order and the column filled.';

create or replace function candles(symbol text, timeframe text, since timestamptz default null, until timestamptz default null,
                                   last integer default null, sessions text default 'all', fill boolean default false)
returns table (symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric, vwap numeric,
               trades bigint, bars integer, session text, complete boolean, filled boolean)
language sql stable
begin atomic
  select m.symbol, m.ts, m.open, m.high, m.low, m.close, m.volume, m.vwap, m.trades, m.bars, m.session, m.complete, m.bars = 0
  from tickstock.make_candles(candles.symbol, candles.timeframe, candles.since, candles.until, candles.last, candles.sessions, candles.fill) m
  order by m.ts;
end;
comment on function candles(text, text, timestamptz, timestamptz, integer, text, boolean) is
  'Candles of a symbol in any timeframe, oldest first. Example: select * from candles(''AAPL'', ''10 minutes'', last => 50, sessions => ''regular'').';
