-- The calendar of the New York exchanges as analysts ask for it. Its data is the table trading_days;
-- session_of(), which tells a moment's session, is made of it by tickstock.rebuild_session_of().

create or replace function tickstock.rebuild_session_of() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  special record;
  -- One day more at each end, so that no moment between the first and the last one is without a bit.
  first_day date := (select min(day) - 1 from public.trading_days);
  last_day date := (select max(day) + 1 from public.trading_days);
  is_unusual text;
  is_summer text;
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
  -- Two bits a day, by the date in New York's winter time, five hours behind UTC all year: to ask for New York's time
  -- itself takes longer than all else that is done to find a bar's session, so that is done on unusual days only. In
  -- summer an hour of the next day has that date, too. It is closed, unless the next day is special.
  select
    string_agg(case when extract(isodow from noon) > 5 or noon::date = any (special.days) or noon::date + 1 = any (special.days)
               then '1' else '0' end, '' order by noon),
    string_agg(case when noon at time zone 'America/New_York' < noon at time zone interval '-05:00' then '1' else '0' end, '' order by noon)
  into is_unusual, is_summer
  from generate_series(first_day + time '12:00', last_day + time '12:00', interval '1 day') noon;

  execute format($f$
    create or replace function tickstock.special_session(local timestamp) returns text
    language plpgsql immutable parallel safe
    as $body$
    declare
      nth integer := array_position(%L::date[], local::date);
      is_usual boolean := nth is null and extract(isodow from local) < 6;
      opens timestamp := case when is_usual then local::date + time '09:30' else (%L::timestamp[])[nth] end;
      closes timestamp := case when is_usual then local::date + time '16:00' else (%L::timestamp[])[nth] end;
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
      when ts < %1$L or ts >= %2$L then 'closed'
      when get_bit(%3$L::varbit, (ts at time zone interval '-05:00')::date - %5$L::date) = 1
        then tickstock.special_session(ts at time zone 'America/New_York')
      else (array['closed', 'pre', 'regular', 'after', 'closed'])[1 + width_bucket((ts at time zone interval '-05:00')::time,
        case get_bit(%4$L::varbit, (ts at time zone interval '-05:00')::date - %5$L::date)
          when 1 then array[time '03:00', '08:30', '15:00', '19:00'] else array[time '04:00', '09:30', '16:00', '20:00'] end)] end $f$,
    coalesce((first_day + 1)::timestamp at time zone 'America/New_York', 'infinity'),
    coalesce(last_day::timestamp at time zone 'America/New_York', '-infinity'), is_unusual, is_summer, first_day);
end $$;
comment on function tickstock.rebuild_session_of() is
  'Makes session_of() anew from trading_days. A trigger calls it when the calendar changes.';
select tickstock.rebuild_session_of();

create or replace view sessions as
select d.day, s.session, s.starts, s.ends, (extract(epoch from s.ends - s.starts) / 60)::integer as minutes
from trading_days d
cross join lateral (values
  ('pre', (d.day + time '04:00') at time zone 'America/New_York', d.opens_at),
  ('regular', d.opens_at, d.closes_at),
  -- What trades after midnight is of the next day.
  ('after', d.closes_at, least(d.closes_at + interval '4 hours', (d.day + 1)::timestamp at time zone 'America/New_York'))
) s (session, starts, ends)
where s.starts < s.ends;
comment on view sessions is
  'The sessions of each trading day: pre, regular and after. session_of() tells the same of a moment. Example: select * from sessions where day = ''2025-11-28''.';
comment on column sessions.day is 'The date in New York.';
comment on column sessions.session is 'pre (from 04:00 New York to the opening), regular, or after (four hours from the close).';
comment on column sessions.starts is 'Its first minute, UTC.';
comment on column sessions.ends is 'Its end (exclusive), UTC.';
comment on column sessions.minutes is 'How many minutes it has.';

create or replace view market_days as
select c.day,
  case when d.closes_at - d.opens_at < interval '6 hours 30 minutes' then 'half'
       when d.day is not null then 'full'
       when extract(isodow from c.day) < 6 then 'holiday'
       else 'weekend' end as kind,
  d.opens_at, d.closes_at
from (select generate_series(min(day)::timestamp, max(day)::timestamp, interval '1 day')::date as day from trading_days) c
left join trading_days d on d.day = c.day;
comment on view market_days is
  'Each date from the first to the last trading day of the calendar, and what kind of day it is. Example: select day from market_days where kind = ''half'' and day > ''2025-01-01''.';
comment on column market_days.day is 'The date in New York.';
comment on column market_days.kind is 'full, half (the regular session is shorter than 6.5 hours), holiday (a weekday without trading) or weekend.';
comment on column market_days.opens_at is 'Opening of the regular session, UTC; null on days without trading.';
comment on column market_days.closes_at is 'Close of the regular session, UTC; null on days without trading.';

create or replace function is_trading_day(day date) returns boolean
language sql stable parallel safe
return case when is_trading_day.day between (select min(d.day) from public.trading_days d) and (select max(d.day) from public.trading_days d)
  then exists (select from public.trading_days d where d.day = is_trading_day.day) end;
comment on function is_trading_day(date) is
  'Whether the New York exchanges trade on this date; null before the calendar begins and after it ends. Example: select is_trading_day(''2025-11-27'').';

create or replace function next_trading_day(day date, n integer default 1) returns date
language sql stable parallel safe
return (
  select d.day from public.trading_days d
  where d.day > next_trading_day.day and next_trading_day.day >= (select min(f.day) from public.trading_days f)
    and next_trading_day.n > 0
  order by d.day offset greatest(next_trading_day.n, 1) - 1 limit 1);
comment on function next_trading_day(date, integer) is
  'The trading day after this date, or the nth after it; null where the calendar does not tell, and for n below 1. Example: select next_trading_day(''2025-11-26'') is 2025-11-28.';

create or replace function previous_trading_day(day date, n integer default 1) returns date
language sql stable parallel safe
return (
  select d.day from public.trading_days d
  where d.day < previous_trading_day.day and previous_trading_day.day <= (select max(l.day) from public.trading_days l)
    and previous_trading_day.n > 0
  order by d.day desc offset greatest(previous_trading_day.n, 1) - 1 limit 1);
comment on function previous_trading_day(date, integer) is
  'The trading day before this date, or the nth before it; null where the calendar does not tell, and for n below 1. Example: select previous_trading_day(''2025-11-28'', 2) is 2025-11-25.';

create or replace function trading_day_of(ts timestamptz) returns date
language sql stable parallel safe
return case when public.session_of(ts) <> 'closed' then (ts at time zone 'America/New_York')::date end;
comment on function trading_day_of(timestamptz) is
  'The trading day in one of whose sessions this moment lies; null when the market is closed. Example: select trading_day_of(''2025-11-28 14:30+00'').';
