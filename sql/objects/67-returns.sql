-- What analysts ask of prices most: returns from day to day, movers, the latest prices.

create or replace function tickstock.make_returns(of_symbol text, from_day date, to_day date)
returns table (symbol text, day date, open numeric, high numeric, low numeric, close numeric, volume numeric,
               previous_close numeric, gap numeric, change numeric, complete boolean)
language plpgsql stable rows 100
as $$
declare
  last_day constant date := coalesce(to_day, (public.feed_clock() at time zone 'America/New_York')::date);
  first_day constant date := coalesce(from_day, last_day);
begin
  -- Planned with these times at hand. A symbol that has not traded for two weeks begins anew.
  return query execute $q$
    select r.symbol, r.day, r.open, r.high, r.low, r.close, r.volume, r.previous_close,
      r.open / nullif(r.previous_close, 0) - 1, r.close / nullif(r.previous_close, 0) - 1, r.complete
    from (
      select d.symbol, d.day, d.open, d.high, d.low, d.close, d.volume, d.complete,
        case when d.day - lag(d.day) over previous <= 14 then lag(d.close) over previous end as previous_close
      from (
        select o.*, (o.ts at time zone 'America/New_York')::date as day from public.ohlcv_daily o
        where o.ts >= $2 and o.ts < $3 and ($1 is null or o.symbol = $1)) d
      window previous as (partition by d.symbol order by d.day)) r
    where r.day >= $4
    order by r.symbol, r.day $q$
  using of_symbol, (first_day - 14)::timestamp at time zone 'America/New_York', (last_day + 1)::timestamp at time zone 'America/New_York', first_day;
end $$;
comment on function tickstock.make_returns(text, date, date) is 'What daily_returns() returns.';

create or replace function daily_returns(symbol text default null, from_day date default null, to_day date default null)
returns table (symbol text, day date, open numeric, high numeric, low numeric, close numeric, volume numeric,
               previous_close numeric, gap numeric, change numeric, complete boolean)
language sql stable rows 100
begin atomic
  select * from tickstock.make_returns(daily_returns.symbol, daily_returns.from_day, daily_returns.to_day);
end;
comment on function daily_returns(text, date, date) is
  'Regular sessions with the close before: gap is open / previous_close - 1, change is close / previous_close - 1; 0.01 is one percent. Null without a day in the two weeks before. symbol null: all. to_day null: the feed''s present day; from_day null: to_day. Example: select day, change from daily_returns(''AAPL'', ''2025-11-01'', ''2025-11-28'').';

create or replace function top_movers(most integer default 10, day date default null)
returns table (symbol text, close numeric, previous_close numeric, change numeric, volume numeric)
language sql stable rows 20
begin atomic
  with moved as materialized (
    select r.symbol, r.close, r.previous_close, r.change, r.volume
    from public.daily_returns(null, top_movers.day, top_movers.day) r where r.change is not null
  )
  select m.symbol, m.close, m.previous_close, m.change, m.volume
  from (select *, row_number() over (order by moved.change desc, moved.symbol) as from_top,
          row_number() over (order by moved.change, moved.symbol) as from_bottom
        from moved) m
  where (m.from_top <= top_movers.most and m.change > 0) or (m.from_bottom <= top_movers.most and m.change < 0)
  order by m.change desc, m.symbol;
end;
comment on function top_movers(integer, date) is
  'The symbols that have risen most on a day, and those that have fallen most, at most so many (most) of each, against the close of the day before; best first. day null: the feed''s present day, as far as it has come. Example: select symbol, round(100 * change, 2) as percent from top_movers(5).';

create or replace function latest_prices(symbols text[] default null)
returns table (symbol text, price numeric, ts timestamptz, previous_close numeric, change numeric)
language plpgsql stable rows 1000
as $$
#variable_conflict use_column
declare
  since constant timestamptz := public.latest_minute() - interval '7 days';
begin
  return query execute $q$
    select p.symbol, p.close, p.ts, d.close, p.close / nullif(d.close, 0) - 1
    from (
      select l.symbol, l.close, l.ts from public.latest_candles('1min') l where $1 is null
      union all
      select s.symbol, l.close, l.ts from unnest($1) s (symbol)
      cross join lateral (
        select o.close, o.ts from public.ohlcv_1min o where o.symbol = s.symbol and o.ts >= $2 order by o.ts desc limit 1) l) p
    left join lateral (
      select c.close from public.ohlcv_daily c
      where c.symbol = p.symbol and c.ts < public.candle_start('daily', p.ts) and c.ts >= public.candle_start('daily', p.ts) - interval '14 days'
      order by c.ts desc limit 1) d on true
    order by p.symbol $q$ using symbols, since;
end $$;
comment on function latest_prices(text[]) is
  'The close of each symbol''s latest minute bar of the feed''s last seven days, when that minute began (UTC), the close of the regular session on the day before, and the change since (0.01 is one percent). symbols null: all. Example: select * from latest_prices(array[''AAPL'', ''MSFT'']).';
