-- Which session a bar belongs to, what is known of each bar besides its numbers, and two constants
-- that keep queries fast. The constants are functions, so that the planner sees their values, and
-- replans when they change.

create function tickstock.rebuild_session_of() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  special record;
  first_day date := (select min(day) from public.trading_days);
  last_day date := (select max(day) from public.trading_days);
  is_special text;
begin
  -- The calendar as constants: a generated column must not read tables.
  select array_agg(c.day order by c.day) as days, array_agg(t.opens_at at time zone 'America/New_York' order by c.day) as opens,
    array_agg(t.closes_at at time zone 'America/New_York' order by c.day) as closes
  into special
  from (select d::date as day from generate_series(first_day::timestamp, last_day::timestamp, interval '1 day') d) c
  left join public.trading_days t on t.day = c.day
  where (t.opens_at at time zone 'America/New_York', t.closes_at at time zone 'America/New_York')
    is distinct from (case when extract(isodow from c.day) < 6 then c.day + time '09:30' end,
                      case when extract(isodow from c.day) < 6 then c.day + time '16:00' end);
  -- A bit a day: a list is searched from its beginning, for each bar, by a generated column.
  select string_agg(case when d::date = any (special.days) then '1' else '0' end, '' order by d) into is_special
  from generate_series(first_day::timestamp, last_day::timestamp, interval '1 day') d;

  execute format($f$
    create or replace function tickstock.special_session(local timestamp) returns text
    language plpgsql immutable parallel safe
    as $body$
    declare
      nth integer := array_position(%L::date[], local::date);
      opens timestamp := (%L::timestamp[])[nth];
      closes timestamp := (%L::timestamp[])[nth];
    begin
      return case
        when local >= local::date + time '04:00' and local < opens then 'pre'
        when local >= opens and local < closes then 'regular'
        when local >= closes and local < closes + interval '4 hours' then 'after'
        else 'closed' end;
    end $body$ $f$, special.days, special.opens, special.closes);

  execute format($f$
    create or replace function public.session_of(ts timestamptz) returns text
    language sql immutable parallel safe
    return case
      when ts < %L or ts >= %L then 'closed'
      when get_bit(%L::varbit, (ts at time zone 'America/New_York')::date - %L::date) = 1
        then tickstock.special_session(ts at time zone 'America/New_York')
      -- 1900 began on a Monday.
      when ((ts at time zone 'America/New_York')::date - date '1900-01-01') %% 7 > 4 then 'closed'
      else (array['closed', 'pre', 'regular', 'after', 'closed'])[1 + width_bucket(
        (ts at time zone 'America/New_York')::time, array[time '04:00', '09:30', '16:00', '20:00'])] end $f$,
    coalesce(first_day::timestamp at time zone 'America/New_York', 'infinity'),
    coalesce((last_day + 1)::timestamp at time zone 'America/New_York', '-infinity'), is_special, first_day);
end $$;
comment on function tickstock.rebuild_session_of() is
  'Makes session_of() anew from trading_days. A trigger calls it when the calendar changes.';

select tickstock.rebuild_session_of();
comment on function tickstock.special_session(timestamp) is
  'session_of() on days that are not as usual: holidays and half days. Made by tickstock.rebuild_session_of().';
comment on function session_of(timestamptz) is
  'The session this moment belongs to: pre (from 04:00 New York), regular (09:30 to 16:00, less on half days), after (four hours from the close), or closed. Follows trading_days.';

-- Of ts alone, but named after volume, too: "set volume = volume" makes it anew after a change of the
-- calendar. (The columnstore refuses "set ts = ts".)
alter table ohlcv_1min add column session text generated always as (case when volume >= 0 then session_of(ts) end) stored;
alter table ohlcv_1min add column complete boolean generated always as (true) stored;
comment on column ohlcv_1min.session is 'pre, regular, after or closed: the session the minute lies in, see session_of().';
comment on column ohlcv_1min.complete is 'Always true: the feed sends a minute when it is over. In larger timeframes false while the candle is forming.';

-- Chunks that hold no recent bar should not be planned for, on each query, only because they exist.
create function tickstock.recent_since() returns timestamptz
language sql stable parallel safe return '-infinity'::timestamptz;
comment on function tickstock.recent_since() is
  'Bars from here on are read through plans made once, older ones through plans made on demand. Changes what queries cost, never what they answer; ohlcv_refresh() moves it along. The start of a half hour.';

create function tickstock.bars_since() returns timestamptz
language sql stable parallel safe return '-infinity'::timestamptz;
comment on function tickstock.bars_since() is
  'Bars before this moment have been dropped, and the candles made of them are final. Set by drop_bars().';

create table ohlcv_revisions (
  id bigint generated always as identity primary key,
  symbol text not null,
  ts timestamptz not null,
  replaced_at timestamptz not null default clock_timestamp(),
  replaced_by text not null,
  open numeric not null,
  high numeric not null,
  low numeric not null,
  close numeric not null,
  volume numeric not null,
  vwap numeric,
  trades bigint
);
create index ohlcv_revisions_symbol_ts_idx on ohlcv_revisions (symbol, ts, id);
comment on table ohlcv_revisions is 'What minute bars were before they were corrected, whoever did it. The bar as it is now is in ohlcv_1min.';
comment on column ohlcv_revisions.id is 'Order of correction.';
comment on column ohlcv_revisions.symbol is 'Ticker.';
comment on column ohlcv_revisions.ts is 'Start of the minute, UTC.';
comment on column ohlcv_revisions.replaced_at is 'Until when it was so, by the database''s clock.';
comment on column ohlcv_revisions.replaced_by is 'Where the correction came from: feed, the name of a file, or sql for a plain statement.';
comment on column ohlcv_revisions.open is 'First price, before.';
comment on column ohlcv_revisions.high is 'Highest price, before.';
comment on column ohlcv_revisions.low is 'Lowest price, before.';
comment on column ohlcv_revisions.close is 'Last price, before.';
comment on column ohlcv_revisions.volume is 'Shares traded, before.';
comment on column ohlcv_revisions.vwap is 'Volume-weighted average price, before.';
comment on column ohlcv_revisions.trades is 'Number of trades, before.';

create table empty_minutes (
  symbol text not null,
  starts timestamptz not null,
  ends timestamptz not null,
  source text not null,
  confirmed_at timestamptz not null default clock_timestamp(),
  primary key (symbol, starts),
  check (starts < ends)
);
comment on table empty_minutes is
  'Stretches of which a source says that the symbol did not trade: in coverage() their minutes are confirmed_empty, not missing. A bar that is stored nevertheless counts as present.';
comment on column empty_minutes.symbol is 'Ticker.';
comment on column empty_minutes.starts is 'First minute, UTC.';
comment on column empty_minutes.ends is 'End (exclusive), UTC.';
comment on column empty_minutes.source is 'Who says so.';
comment on column empty_minutes.confirmed_at is 'When, by the database''s clock.';
