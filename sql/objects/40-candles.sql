-- The candles. In any snapshot, each ohlcv_<timeframe> equals the direct aggregation of ohlcv_1min
-- in that snapshot: materialized candles that are not dirty, and live ones in place of those that are.
--
--   tickstock.candles_<tf>      materialized: continuous aggregate, or table (run-once migrations)
--   tickstock.live_<tf>(s, ts)  the same, computed now from the next lower exact relation
--   tickstock.exact_<tf>        the union of the clean ones of the first and the dirty ones of the second
--   ohlcv_<tf>                  exact_<tf> as the analyst sees it: vwap in place of turnover
--
-- Marks of change are half hours ("granules"), since 09:30, 13:00 and 16:00 fall on half hours.
-- An aggregate of a column that not all bars tell (turnover, trades) is null rather than partial.

create or replace function tickstock.old_bars(of_symbol text, since timestamptz, until timestamptz) returns setof public.ohlcv_1min
language plpgsql stable rows 30
as $$
begin
  -- Planned with these values at hand, so that one chunk is looked at, not all there are: years of bars are hundreds,
  -- and to pass over these for each symbol would take longer than to read it.
  return query execute 'select * from public.ohlcv_1min where symbol = $1 and ts >= $2 and ts < $3'
    using of_symbol, since, until;
end $$;
comment on function tickstock.old_bars(text, timestamptz, timestamptz) is
  'Bars of a symbol from one time up to another, exclusive, for times before tickstock.recent_since(): by a plan for just these chunks.';

create or replace function tickstock.candles_of_minutes(of_symbol text, starts timestamptz, width interval, recent_since timestamptz)
returns table (symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric,
               volume numeric, turnover numeric, trades bigint, bars integer)
language sql stable
begin atomic
  select of_symbol, date_bin(width, b.ts, '2000-01-03 00:00+00'),
    (array_agg(b.open order by b.ts))[1], max(b.high), min(b.low), (array_agg(b.close order by b.ts desc))[1],
    sum(b.volume), case when count(*) = count(b.vwap) then sum(b.vwap * b.volume) end,
    case when count(*) = count(b.trades) then sum(b.trades)::bigint end, count(*)::integer
  -- "offset 0" keeps the ordered aggregates from asking every chunk for sorted rows.
  from (select * from public.ohlcv_1min m
        where m.symbol = of_symbol and m.ts >= starts and m.ts < public.candle_end('30min', starts)
          and m.ts >= recent_since
        union all
        select * from tickstock.old_bars(of_symbol, starts, public.candle_end('30min', starts)) where starts < recent_since offset 0) b
  group by 2
  -- A condition such as ts > latest_minute() - interval '1 hour' is asked for each candle, not for each bar.
  offset 0;
end;
comment on function tickstock.candles_of_minutes(text, timestamptz, interval, timestamptz) is
  'Candles of the given width (up to 30 minutes) within one half hour of a symbol, computed from its bars. recent_since: tickstock.recent_since(), asked once.';

do $$
declare
  level record;
  body text;
begin
  for level in
    select * from (values
      -- timeframe, what makes one dirty candle, key: the unit that is made anew, stale: when a mark d hits candle m
      (1, '5min',    'minutes', '30min',   $q$d.granule = public.candle_start('30min', m.ts)$q$),
      (2, '15min',   'minutes', '30min',   $q$d.granule = public.candle_start('30min', m.ts)$q$),
      (3, '30min',   'minutes', '30min',   $q$d.granule = m.ts$q$),
      (4, '1hour',   '30min',   '1hour',   $q$public.candle_start('1hour', d.granule) = m.ts$q$),
      (5, '4hour',   '30min',   '4hour',   $q$public.candle_start('4hour', d.granule) = m.ts$q$),
      (6, 'daily',   '30min',   'daily',   $q$public.candle_start('daily', d.granule) = m.ts$q$),
      (7, 'weekly',  'daily',   'weekly',  $q$public.candle_start('weekly', d.granule) = m.ts$q$),
      (8, 'monthly', 'daily',   'monthly', $q$public.candle_start('monthly', d.granule) = m.ts$q$)
    ) as v (position, timeframe, source, key, stale) order by position
  loop
    if level.source = 'minutes' then
      -- An argument, for it may move while the query is being planned: each of its two uses would inline
      -- another one, and bars between these two would count twice, or not at all.
      body := format('select * from tickstock.candles_of_minutes(of_symbol, starts, %L, tickstock.recent_since())',
                     (select width from timeframes t where t.timeframe = level.timeframe));
    else
      body := format($q$
        select of_symbol, starts,
          (array_agg(c.open order by c.ts))[1], max(c.high), min(c.low), (array_agg(c.close order by c.ts desc))[1],
          sum(c.volume), case when count(*) = count(c.turnover) then sum(c.turnover) end,
          case when count(*) = count(c.trades) then sum(c.trades)::bigint end, sum(c.bars)::integer
        from (select * from %s offset 0) c
        having count(*) > 0 $q$,
        case level.source when 'daily' then
          format('tickstock.exact_daily e where e.symbol = of_symbol and e.ts >= starts and e.ts < public.candle_end(%L, starts)', level.timeframe)
        else
          format('tickstock.half_hours(of_symbol, starts, public.candle_end(%L, starts), tickstock.recent_since()) e', level.timeframe)
          || case level.timeframe when 'daily' then
            -- A day is its regular session.
            $q$ where e.ts >= (select opens_at from public.trading_days where day = (starts at time zone 'America/New_York')::date)
                  and e.ts < (select closes_at from public.trading_days where day = (starts at time zone 'America/New_York')::date)$q$
          else '' end
        end);
    end if;
    execute format($q$
      create or replace function tickstock.live_%s(of_symbol text, starts timestamptz)
      returns table (symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric,
                     volume numeric, turnover numeric, trades bigint, bars integer)
      language sql stable
      begin atomic
        %s;
      end $q$, level.timeframe, body);
    execute format('comment on function tickstock.live_%s(text, timestamptz) is %L', level.timeframe,
      format('%s candles of a symbol in the %s that begins at starts, as they are at this moment.', level.timeframe,
             case level.key when '30min' then 'half hour' else 'candle' end));

    execute format($q$
      create or replace view tickstock.exact_%1$s as
      select m.symbol, m.ts, m.open, m.high, m.low, m.close, m.volume, m.turnover, m.trades, m.bars
      from tickstock.candles_%1$s m
      where not exists (select from tickstock.dirty d where d.symbol = m.symbol and %3$s)
      union all
      -- symbol and time of the key, not of what it yields: so conditions on them reach the index of the marks.
      select k.symbol, %4$s, c.open, c.high, c.low, c.close, c.volume, c.turnover, c.trades, c.bars
      from (select distinct d.symbol, public.candle_start(%2$L, d.granule) as ts from tickstock.dirty d) k
      cross join lateral tickstock.live_%1$s(k.symbol, k.ts) c $q$,
      level.timeframe, level.key, level.stale, case when level.key = level.timeframe then 'k.ts' else 'c.ts' end);
    execute format('comment on view tickstock.exact_%s is %L', level.timeframe,
      'Clean materialized candles and live ones for the rest, with turnover (the sum of vwap * volume).');

    execute format($q$
      create or replace view public.ohlcv_%1$s as
      select symbol, ts, open, high, low, close, volume, turnover / nullif(volume, 0) as vwap, trades, bars, %2$s as session,
        -- Asked once a query, not once a candle.
        ts <= (select tickstock.complete_until(%1$L)) as complete
      from tickstock.exact_%1$s $q$, level.timeframe,
      case when level.position <= 3 then 'public.session_of(ts)'
           when level.position > 5 then $q$'regular'::text$q$
           -- Four hours hold no two nights: where they begin and end in one session, they are in it.
           else format($q$case when public.session_of(ts) = public.session_of(public.candle_end(%L, ts) - interval '1 minute')
                          then public.session_of(ts) end$q$, level.timeframe) end);

    if level.timeframe = '30min' then
      create or replace function tickstock.old_half_hours(of_symbol text, starts timestamptz, ends timestamptz)
      returns table (symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric,
                     volume numeric, turnover numeric, trades bigint, bars integer)
      language plpgsql stable rows 8
      set plan_cache_mode = force_generic_plan  -- to plan it takes longer than to pass chunks over
      as $f$
      #variable_conflict use_column
      begin
        return query select * from tickstock.exact_30min e where e.symbol = of_symbol and e.ts >= starts and e.ts < ends;
      end $f$;
      comment on function tickstock.old_half_hours(text, timestamptz, timestamptz) is
        'Half hours of a symbol from starts to ends, before tickstock.recent_since(), as they are at this moment.';
      -- What is recent is in a chunk or two, which is known while the query is planned: years of others are not passed
      -- over for each symbol.
      create or replace function tickstock.half_hours(of_symbol text, starts timestamptz, ends timestamptz, recent_since timestamptz)
      returns table (symbol text, ts timestamptz, open numeric, high numeric, low numeric, close numeric,
                     volume numeric, turnover numeric, trades bigint, bars integer)
      language sql stable
      begin atomic
        select * from tickstock.exact_30min e
        where e.symbol = of_symbol and e.ts >= starts and e.ts < ends and e.ts >= recent_since
        union all
        select * from tickstock.old_half_hours(of_symbol, starts, least(ends, recent_since)) where starts < recent_since;
      end;
      comment on function tickstock.half_hours(text, timestamptz, timestamptz, timestamptz) is
        'Half hours of a symbol from starts to ends, as they are at this moment. recent_since: tickstock.recent_since(), asked once.';
    end if;
  end loop;
end $$;
-- Before 0.2 was released one asked recent_since() itself, the other knew half hours only. Here, since nothing uses
-- them any more.
drop function if exists tickstock.candles_of_minutes(text, timestamptz, interval), tickstock.old_bars(text, timestamptz);

do $$
declare
  tf record;
  starts text;
begin
  for tf in select * from timeframes where timeframe <> '1min' loop
    starts := case tf.timeframe
      when '4hour' then 'Start of the candle, UTC; counted in fours from midnight in New York.'
      when 'daily' then 'Midnight in New York of the trading day, UTC.'
      when 'weekly' then 'Midnight in New York of the week''s Monday, UTC.'
      when 'monthly' then 'Midnight in New York of the month''s first day, UTC.'
      else 'Start of the candle on the clock, UTC.' end;
    execute format('comment on view ohlcv_%s is %L', tf.timeframe,
      format('%s candles of %s, exact at any moment: every change of ohlcv_1min shows in the next statement.', tf.timeframe,
        case tf.sessions when 'all' then 'all bars (pre-market, regular session, after-hours)'
        else 'the regular session (see trading_days)' end));
    execute format('comment on column ohlcv_%s.symbol is %L', tf.timeframe, 'Ticker.');
    execute format('comment on column ohlcv_%s.ts is %L', tf.timeframe, starts);
    execute format('comment on column ohlcv_%s.open is %L', tf.timeframe, 'Open of the first bar.');
    execute format('comment on column ohlcv_%s.high is %L', tf.timeframe, 'Highest price.');
    execute format('comment on column ohlcv_%s.low is %L', tf.timeframe, 'Lowest price.');
    execute format('comment on column ohlcv_%s.close is %L', tf.timeframe, 'Close of the last bar.');
    execute format('comment on column ohlcv_%s.volume is %L', tf.timeframe, 'Shares traded.');
    execute format('comment on column ohlcv_%s.vwap is %L', tf.timeframe, 'Volume-weighted average price; null unless every bar of the candle has one, and if the candle has no volume.');
    execute format('comment on column ohlcv_%s.trades is %L', tf.timeframe, 'Number of trades; null unless every bar of the candle has one.');
    execute format('comment on column ohlcv_%s.bars is %L', tf.timeframe, 'Number of minute bars in the candle.');
    execute format('comment on column ohlcv_%s.session is %L', tf.timeframe, case tf.sessions when 'all'
      then 'pre, regular, after or closed, see session_of(); null where the candle lies in more than one.'
      else 'regular: the candle is made of the regular session.' end);
    execute format('comment on column ohlcv_%s.complete is %L', tf.timeframe,
      'Whether the feed''s clock has passed its end, so that no further bar is expected in it. False while it is forming.');
  end loop;
end $$;
