-- The calendar of the New York exchanges as analysts ask for it. Its data is the table trading_days;
-- session_of(), which tells a moment's session, is made of it by tickstock.rebuild_session_of().

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
