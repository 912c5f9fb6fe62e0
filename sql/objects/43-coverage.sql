-- Which minutes are there, of those that could be: the bars against the calendar.

create or replace function tickstock.passed_sessions(from_day date, to_day date)
returns table (day date, session text, starts timestamptz, ends timestamptz)
language plpgsql stable rows 3
as $$
declare
  clock constant timestamptz := public.feed_clock();
  last_day constant date := coalesce(to_day, (clock at time zone 'America/New_York')::date);
  first_day constant date := coalesce(from_day, last_day);
begin
  -- No rows would read as nothing missing.
  if first_day > last_day and to_day is null then
    raise exception 'the days from % on? The feed has come to % only', first_day, last_day using errcode = 'invalid_parameter_value';
  elsif first_day > last_day then
    raise exception 'the days from % to %? Give from_day and to_day, the earlier one first', first_day, last_day
      using errcode = 'invalid_parameter_value';
  end if;
  return query
    select s.day, s.session, s.starts, least(s.ends, clock) from public.sessions s
    where s.day between first_day and last_day and s.starts < clock and s.starts >= tickstock.bars_since();
end $$;
comment on function tickstock.passed_sessions(date, date) is
  'The sessions of these days, as far as the feed''s clock has come, without those whose bars have been dropped. to_day null: the feed''s present day; from_day null: to_day.';

create or replace function tickstock.minutes_with_bars(of_symbol text, starts timestamptz, ends timestamptz) returns tstzmultirange
language plpgsql stable
as $$
declare
  minutes tstzmultirange;
begin
  if of_symbol is null then
    -- It has no bars, so all minutes would seem to be missing.
    raise exception 'the missing minutes of which symbol? coverage() counts those of all, where its symbol is null'
      using errcode = 'invalid_parameter_value';
  end if;
  -- Planned with these times at hand, so that only their chunk is looked at.
  execute $q$select range_agg(tstzrange(ts, ts + interval '1 minute')) from public.ohlcv_1min where symbol = $1 and ts >= $2 and ts < $3$q$
    into minutes using of_symbol, starts, ends;
  return coalesce(minutes, '{}');
end $$;
comment on function tickstock.minutes_with_bars(text, timestamptz, timestamptz) is
  'The minutes from starts up to ends of which the symbol has a bar.';

create or replace function tickstock.told(of_symbol text, starts timestamptz, ends timestamptz)
returns table (symbol text, minutes tstzmultirange)
language sql stable
begin atomic
  select e.symbol, range_agg(tstzrange(date_bin('1 minute', greatest(e.starts, told.starts) + almost, origin),
                                       date_bin('1 minute', least(e.ends, told.ends) + almost, origin)))
  -- Of a stretch that does not lie on minutes, those that begin in it.
  from (select interval '59.999999 seconds' as almost, timestamptz '2000-01-03 00:00+00' as origin) round_up, (
    select b.symbol, b.starts, b.ends from public.backfills b
    where b.settled and (of_symbol is null or b.symbol in (of_symbol, '*'))
    union all
    select r.symbol, lower(c.stretch), upper(c.stretch)
    from tickstock.live_runs(of_symbol) r cross join lateral unnest(r.covered) c (stretch)) e
  where e.starts < told.ends and e.ends > told.starts
  group by e.symbol;
end;
comment on function tickstock.told(text, timestamptz, timestamptz) is
  'The minutes from starts up to ends that the live feed or another source has told in full: without a bar, the symbol did not trade, unless it is in doubt. Of a symbol (null: of each), and of all symbols together (*).';

create or replace function tickstock.doubted(of_symbol text, starts timestamptz, ends timestamptz)
returns table (symbol text, minutes tstzmultirange)
language sql stable
begin atomic
  select d.symbol, range_agg(tstzrange(d.ts, d.ts + interval '1 minute')) from tickstock.doubts d
  where (of_symbol is null or d.symbol = of_symbol) and d.ts >= doubted.starts and d.ts < doubted.ends
  group by d.symbol;
end;
comment on function tickstock.doubted(text, timestamptz, timestamptz) is
  'The minutes from starts up to ends for which something came that was no bar, or too late for one. Of a symbol (null: of each).';

create or replace function tickstock.count_minutes(minutes tstzmultirange) returns integer
language sql immutable
return (select coalesce(sum(extract(epoch from upper(r) - lower(r)) / 60), 0)::integer from unnest(minutes) r);
comment on function tickstock.count_minutes(tstzmultirange) is 'How many minutes these ranges have.';

create or replace function tickstock.count_sessions(of_symbol text, from_day date, to_day date)
returns table (symbol text, day date, session text, expected integer, present integer, corrected integer, confirmed_empty integer)
language plpgsql stable
as $$
declare
  since timestamptz;
  until timestamptz;
begin
  select min(p.starts), max(p.ends) into since, until from tickstock.passed_sessions(from_day, to_day) p;
  -- Planned with these times at hand, so that only their chunks are looked at. All symbols together: by itself
  -- each would be asked for in every session.
  return query execute $q$
    with told as materialized (
      select t.symbol, t.minutes from tickstock.told($1, $4, $5) t
    ), doubted as materialized (
      select d.symbol, d.minutes from tickstock.doubted($1, $4, $5) d
    ), counted as materialized (
      select b.symbol, (b.ts at time zone 'America/New_York')::date as day, b.session, count(*)::integer as present, count(r.ts)::integer as corrected,
        count(*) filter (where (b.ts <@ t.minutes or b.ts <@ a.minutes) and (b.ts <@ d.minutes) is not true)::integer as told
      from public.ohlcv_1min b
      left join told t on t.symbol = b.symbol
      left join told a on a.symbol = '*'
      left join doubted d on d.symbol = b.symbol
      left join (select distinct o.symbol, o.ts from public.ohlcv_revisions o
                 where o.ts >= $4 and o.ts < $5 and ($1 is null or o.symbol = $1)) r on r.symbol = b.symbol and r.ts = b.ts
      where b.ts >= $4 and b.ts < $5 and ($1 is null or b.symbol = $1)
      group by 1, 2, 3
    ), symbols as (
      select $1 as symbol where $1 is not null union select c.symbol from counted c
    )
    select s.symbol, p.day, p.session, (extract(epoch from p.ends - p.starts) / 60)::integer, coalesce(c.present, 0), coalesce(c.corrected, 0),
      tickstock.count_minutes((coalesce(t.minutes, '{}') + coalesce(a.minutes, '{}') - coalesce(d.minutes, '{}'))
                              * tstzmultirange(tstzrange(p.starts, p.ends)))
        - coalesce(c.told, 0)
    from symbols s
    cross join tickstock.passed_sessions($2, $3) p
    left join counted c on c.symbol = s.symbol and c.day = p.day and c.session = p.session
    left join told t on t.symbol = s.symbol
    left join told a on a.symbol = '*'
    left join doubted d on d.symbol = s.symbol
    order by s.symbol, p.starts $q$
  using of_symbol, from_day, to_day, since, until;
end $$;
comment on function tickstock.count_sessions(text, date, date) is 'What coverage() returns, but for the missing minutes.';

create or replace function coverage(symbol text default null, from_day date default null, to_day date default null)
returns table (symbol text, day date, session text, expected integer, present integer, corrected integer, confirmed_empty integer, missing integer)
language sql stable
begin atomic
  select c.symbol, c.day, c.session, c.expected, c.present, c.corrected, c.confirmed_empty, c.expected - c.present - c.confirmed_empty
  from tickstock.count_sessions(coverage.symbol, coverage.from_day, coverage.to_day) c;
end;
comment on function coverage(text, date, date) is
  'How many minutes of each session are there, per symbol and day (New York): expected by the calendar as far as the feed''s clock has come, present, corrected since they came in, confirmed_empty (no trade: the live feed covered the minute, or another source told it, and there is no bar), and missing. symbol null: all symbols that have bars in these days. to_day null: the feed''s present day; from_day null: to_day. Example: select * from coverage(''AAPL'', ''2025-11-24'', ''2025-11-28'').';

create or replace function missing_minutes(symbol text, from_day date default null, to_day date default null)
returns table (symbol text, day date, session text, starts timestamptz, ends timestamptz, minutes integer)
language sql stable
begin atomic
  select missing_minutes.symbol, p.day, p.session, lower(r), upper(r), (extract(epoch from upper(r) - lower(r)) / 60)::integer
  from tickstock.passed_sessions(missing_minutes.from_day, missing_minutes.to_day) p
  cross join lateral unnest(tstzmultirange(tstzrange(p.starts, p.ends))
                            - tickstock.minutes_with_bars(missing_minutes.symbol, p.starts, p.ends)
                            - ((select coalesce(range_agg(t.minutes), '{}') from tickstock.told(missing_minutes.symbol, p.starts, p.ends) t)
                               - (select coalesce(range_agg(d.minutes), '{}') from tickstock.doubted(missing_minutes.symbol, p.starts, p.ends) d))) r
  order by lower(r);
end;
comment on function missing_minutes(text, date, date) is
  'The minutes that coverage() calls missing, as stretches from starts up to, not including, ends (UTC). Days as in coverage(). Example: select * from missing_minutes(''AAPL'', ''2025-11-24'', ''2025-11-28'').';

-- Before 0.2 was released: of one symbol. Here, since nothing uses it any more.
drop function if exists tickstock.minutes_told(text, timestamptz, timestamptz);
