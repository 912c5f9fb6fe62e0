-- What became of events: the candles that made one, those that came after, and how often a pattern was right.

-- One function a timeframe: a plan of its own, on the one relation it needs, kept by the session.
do $$
declare
  tf record;
begin
  for tf in select timeframe from timeframes loop
    execute format($q$
      create or replace function tickstock.closes_after_%1$s(of_symbol text, starts timestamptz, number integer, out closes numeric[], out until timestamptz)
      language plpgsql stable parallel safe
      -- Planning takes longer than running, and the plan is the same for every event.
      set plan_cache_mode = force_generic_plan
      as $f$
      declare
        reach integer := number;
      begin
        -- The next bar there is may be one of months later.
        if %2$s then
          closes := '{}';
          until := starts;
          return;
        end if;
        -- Mostly the materialized candles are complete, and none of them is marked: then they are what the view says.
        select array_agg(m.close order by m.ts), max(m.ts) into closes, until
        from (select c.ts, c.close from tickstock.candles_%1$s c where c.symbol = of_symbol and c.ts > starts order by c.ts limit number) m;
        if cardinality(closes) = number and public.candle_end(%1$L, until) <= public.latest_minute()
           and not exists (select from tickstock.dirty d where d.symbol = of_symbol and d.granule > starts - interval '30 minutes'
                           and d.granule < public.candle_end(%1$L, until)) then
          return;
        end if;
        -- Without a bound a view makes all later candles of the symbol for the next few. Some of the materialized
        -- ones may be gone by now: then farther.
        loop
          until := coalesce((select m.ts from tickstock.candles_%1$s m where m.symbol = of_symbol and m.ts > starts
                             order by m.ts offset reach - 1 limit 1), 'infinity');
          closes := array(select c.close from public.ohlcv_%1$s c
                          where c.symbol = of_symbol and c.ts > starts and c.ts <= until and c.complete order by c.ts limit number);
          if cardinality(closes) = number or until = 'infinity' then
            return;
          end if;
          reach := 4 * reach;
        end loop;
      end $f$ $q$, tf.timeframe, case tf.timeframe when '1min' then 'starts < tickstock.bars_since()' else 'false' end);
    execute format('comment on function tickstock.closes_after_%s(text, timestamptz, integer) is %L', tf.timeframe,
      format('Closes of the next so many complete %s candles of the symbol after the one that begins at starts, or of as many as there are, of none where the bars have been dropped; and a time by which these have begun.', tf.timeframe));
    execute format($q$
      create or replace function tickstock.open_after_%1$s(of_symbol text, starts timestamptz) returns numeric
      language plpgsql stable parallel safe
      set plan_cache_mode = force_generic_plan
      as $f$
      declare
        -- As above: a bound keeps the view from making all later candles.
        until constant timestamptz := (select a.until from tickstock.closes_after_%1$s(of_symbol, starts, 1) a);
      begin
        return (select c.open from public.ohlcv_%1$s c
                where c.symbol = of_symbol and c.ts > starts and c.ts <= until order by c.ts limit 1);
      end $f$ $q$, tf.timeframe);
    execute format('comment on function tickstock.open_after_%s(text, timestamptz) is %L', tf.timeframe,
      format('Open of the next %s candle of the symbol after the one that begins at starts, complete or not; null if there is none.', tf.timeframe));
  end loop;
end $$;

create or replace view event_outcomes as
select e.id, e.pattern, e.symbol, e.timeframe, e.ts, e.direction, e.strength, e.price, e.late, a.candles_after,
  round((a.closes[1] / nullif(e.price, 0) - 1) * a.sign, 6) as return_1,
  round((a.closes[5] / nullif(e.price, 0) - 1) * a.sign, 6) as return_5,
  round((a.closes[20] / nullif(e.price, 0) - 1) * a.sign, 6) as return_20,
  case e.timeframe
    when '1min' then tickstock.open_after_1min(e.symbol, e.ts)
    when '5min' then tickstock.open_after_5min(e.symbol, e.ts)
    when '15min' then tickstock.open_after_15min(e.symbol, e.ts)
    when '30min' then tickstock.open_after_30min(e.symbol, e.ts)
    when '1hour' then tickstock.open_after_1hour(e.symbol, e.ts)
    when '4hour' then tickstock.open_after_4hour(e.symbol, e.ts)
    when 'daily' then tickstock.open_after_daily(e.symbol, e.ts)
    when 'weekly' then tickstock.open_after_weekly(e.symbol, e.ts)
    when 'monthly' then tickstock.open_after_monthly(e.symbol, e.ts)
  end as next_open
from events e
cross join lateral (
  select c.closes, cardinality(c.closes) as candles_after, case e.direction when 'short' then -1 else 1 end as sign
  -- offset 0: asked once, for three numbers.
  from (select case e.timeframe
      when '1min' then (tickstock.closes_after_1min(e.symbol, e.ts, 20)).closes
      when '5min' then (tickstock.closes_after_5min(e.symbol, e.ts, 20)).closes
      when '15min' then (tickstock.closes_after_15min(e.symbol, e.ts, 20)).closes
      when '30min' then (tickstock.closes_after_30min(e.symbol, e.ts, 20)).closes
      when '1hour' then (tickstock.closes_after_1hour(e.symbol, e.ts, 20)).closes
      when '4hour' then (tickstock.closes_after_4hour(e.symbol, e.ts, 20)).closes
      when 'daily' then (tickstock.closes_after_daily(e.symbol, e.ts, 20)).closes
      when 'weekly' then (tickstock.closes_after_weekly(e.symbol, e.ts, 20)).closes
      when 'monthly' then (tickstock.closes_after_monthly(e.symbol, e.ts, 20)).closes
    end as closes offset 0) c
) a
where e.retracted_at is null;
comment on view event_outcomes is
  'What the price did after each event that is not retracted: its return after 1, 5 and 20 candles of its timeframe, from the candles as they are now. Reads some tens of candles per event, so filter by id, pattern, symbol or time. Example: select symbol, ts, return_1, return_5 from event_outcomes where pattern = ''Hammer'' and timeframe = ''5min'' and ts > feed_clock() - interval ''7 days'' order by ts.';
comment on column event_outcomes.id is 'Event id; the rest of the event is in events.';
comment on column event_outcomes.pattern is 'Name of the pattern.';
comment on column event_outcomes.symbol is 'Ticker.';
comment on column event_outcomes.timeframe is 'Timeframe of the candle that completed the pattern, and of those counted after it.';
comment on column event_outcomes.ts is 'Start of the candle that completed the pattern, UTC.';
comment on column event_outcomes.direction is 'long, short or neutral.';
comment on column event_outcomes.strength is 'From 0 to 1, as the pattern defines it.';
comment on column event_outcomes.price is 'Close of that candle, from which the returns count.';
comment on column event_outcomes.late is 'Recorded when the next candle was over already: nobody could have acted on it in time.';
comment on column event_outcomes.candles_after is 'Complete candles of the symbol that have come after it, counted up to 20; 0 where the candles are gone with their bars (1min, after drop_bars()).';
comment on column event_outcomes.return_1 is 'Close of the next candle / price - 1; with the opposite sign for a short event, so that above 0 it was right. 0.01 is one percent. Null while there is no such candle.';
comment on column event_outcomes.return_5 is 'The same for the fifth candle after it.';
comment on column event_outcomes.return_20 is 'The same for the twentieth candle after it.';
comment on column event_outcomes.next_open is 'Open of the next candle of its timeframe, complete or not: the first price after the event. Nobody who acts on an event gets the event''s own price; after a daily one there is a night in between. Null while there is no next candle.';

create or replace view pattern_performance as
select o.pattern, o.timeframe, o.direction, count(*) as events,
  count(o.return_1) as known_1, count(o.return_5) as known_5, count(o.return_20) as known_20,
  case when o.direction <> 'neutral' then round(avg((o.return_1 > 0)::integer), 4) end as hit_rate_1,
  case when o.direction <> 'neutral' then round(avg((o.return_5 > 0)::integer), 4) end as hit_rate_5,
  case when o.direction <> 'neutral' then round(avg((o.return_20 > 0)::integer), 4) end as hit_rate_20,
  round(avg(o.return_1), 6) as mean_return_1, round(avg(o.return_5), 6) as mean_return_5, round(avg(o.return_20), 6) as mean_return_20,
  round((percentile_cont(0.5) within group (order by o.return_1))::numeric, 6) as median_return_1,
  round((percentile_cont(0.5) within group (order by o.return_5))::numeric, 6) as median_return_5,
  round((percentile_cont(0.5) within group (order by o.return_20))::numeric, 6) as median_return_20
from event_outcomes o
group by o.pattern, o.timeframe, o.direction;
comment on view pattern_performance is
  'How often each pattern was right, by timeframe and direction, over all events that are not retracted. Measured from the close that made the event, a price that nobody who acts on it can get: see event_outcomes.next_open. Without costs and spread; overlapping events all count. Computed at each query, a thousand or more events a second: choose a pattern or a timeframe. Example: select * from pattern_performance where timeframe = ''5min'' order by hit_rate_5 desc nulls last. For a stretch of time aggregate event_outcomes in the same way.';
comment on column pattern_performance.pattern is 'Name of the pattern.';
comment on column pattern_performance.timeframe is 'Timeframe.';
comment on column pattern_performance.direction is 'long, short or neutral.';
comment on column pattern_performance.events is 'Events that are not retracted, late ones included.';
comment on column pattern_performance.known_1 is 'How many of these have a next candle; the numbers after 1 candle are computed from them.';
comment on column pattern_performance.known_5 is 'The same with a fifth candle.';
comment on column pattern_performance.known_20 is 'The same with a twentieth candle.';
comment on column pattern_performance.hit_rate_1 is 'Share of known_1 with return_1 above 0, from 0 to 1; null for neutral events, which have no direction.';
comment on column pattern_performance.hit_rate_5 is 'The same after 5 candles.';
comment on column pattern_performance.hit_rate_20 is 'The same after 20 candles.';
comment on column pattern_performance.mean_return_1 is 'Mean of event_outcomes.return_1.';
comment on column pattern_performance.mean_return_5 is 'The same after 5 candles.';
comment on column pattern_performance.mean_return_20 is 'The same after 20 candles.';
comment on column pattern_performance.median_return_1 is 'Median of event_outcomes.return_1.';
comment on column pattern_performance.median_return_5 is 'The same after 5 candles.';
comment on column pattern_performance.median_return_20 is 'The same after 20 candles.';

create or replace function event_candles(event_id bigint, after integer default 0)
returns table (place integer, symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric,
               vwap numeric, trades bigint, bars integer, session text)
language plpgsql stable rows 50
as $$
#variable_conflict use_column
declare
  e public.events;
  until timestamptz;
begin
  if after is null or after < 0 then
    raise exception 'the % candles after an event? Give a number from 0 up', after using errcode = 'invalid_parameter_value';
  end if;
  select * into e from public.events v where v.id = event_id;
  if e.id is null then
    return;
  end if;
  until := e.ts;
  if after > 0 then
    execute format('select a.until from tickstock.closes_after_%s($1, $2, $3) a', e.timeframe) into until using e.symbol, e.ts, after;
  end if;
  return query execute format($q$
    select * from (
      select (row_number() over (order by c.ts) - 1 - count(*) filter (where c.ts < $2) over ()
              -- Its own candle may be gone: the next one is 1 all the same.
              + case when c.ts > $2 then 1 - count(*) filter (where c.ts = $2) over () else 0 end)::integer as place,
        c.symbol, c.ts, c.open, c.high, c.low, c.close, c.volume, c.vwap, c.trades, c.bars, c.session
      from public.ohlcv_%1$s c
      where c.symbol = $1 and c.ts >= $3 and c.ts <= $5 and (c.complete or c.ts <= $2)) p
    where p.place <= $4 order by p.ts $q$, e.timeframe)
  using e.symbol, e.ts, coalesce(e.candles_from, e.ts), after, until;
end $$;
comment on function event_candles(bigint, integer) is
  'The candles that an event''s pattern looked at, as they are now, and so many complete ones after them, oldest first. place: 0 is the candle that completed the pattern, -1 the one before it, 1 the next. No row for an unknown event. Example: select place, ts, open, high, low, close from event_candles(1, after => 5).';
