-- How scanners share the work. Symbols are divided into shares; whoever locks a share's row scans what
-- is complete of it. What is taken, what follows and what is found is one transaction: a scanner that
-- dies gives its share back, and no two judge candles of one symbol at the same time.

-- Up to version 0.1 it took a fair share whatever its size.
drop function if exists tickstock.take_shards();
create or replace function tickstock.take_shards(most integer) returns integer[]
language plpgsql
as $$
declare
  clock constant timestamptz := public.latest_minute();
  -- A fair share: each scanner holds this lock, shared, as long as it lives.
  scanners constant bigint := (
    select count(*) from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.mode = 'ShareLock' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
      and l.objid::bigint = hashtext('tickstock.scanners')::bigint & x'ffffffff'::bigint);
  fair constant integer := ceil((select count(*) from tickstock.scan_shards)::numeric / greatest(1, scanners));
  candles bigint := 0;
  mine integer[] := '{}';
  waits record;
begin
  for waits in
    select q.shard, min(q.id) as oldest from tickstock.scan_queue q where q.ready_at <= clock group by q.shard order by oldest
  loop
    -- Not "for update": queued batches refer to the row, and their writers would wait.
    perform from tickstock.scan_shards s where s.shard = waits.shard for no key update skip locked;
    if found then
      mine := mine || waits.shard;
      candles := candles + (
        select sum(cardinality(b.symbols)) from (
          select q.symbols from tickstock.scan_queue q where q.shard = waits.shard and q.ready_at <= clock
          order by q.ready_at, q.id limit most) b);
    end if;
    exit when candles >= most or cardinality(mine) >= fair;
  end loop;
  return mine;
end $$;
comment on function tickstock.take_shards(integer) is
  'Locks shares of the symbols of which complete candles wait, those that have waited longest, until there are so many candles; not more than a fair share of them: so many scanners as hold the advisory lock tickstock.scanners.';

create or replace function tickstock.bars_between(of_symbol text, after timestamptz, until timestamptz, recent_since timestamptz)
returns setof public.ohlcv_1min
language sql stable
begin atomic
  select b.* from (
    -- More than is wanted: of the newest minutes statistics know nothing, so by these alone the planner might go
    -- through all symbols for each.
    select * from public.ohlcv_1min m
    where m.symbol = of_symbol and m.ts > after - interval '5 minutes' and m.ts >= recent_since
    union all
    select * from tickstock.old_bars(of_symbol, after, least(until + interval '1 minute', recent_since)) where after < recent_since offset 0) b
  where b.ts > after and b.ts <= until;
end;
comment on function tickstock.bars_between(text, timestamptz, timestamptz, timestamptz) is
  'Bars of a symbol after one time up to another, which lies not far before the last one. recent_since: tickstock.recent_since(), asked once.';

-- Inlined where it is called: no call for each symbol.
create or replace function tickstock.complete_up_to(symbol text, clock timestamptz) returns table (up_to timestamptz)
language sql stable
begin atomic
  -- Its latest bar: asked for that of the clock's minute, the planner might go through all symbols' for each.
  select case when clock = (select max(b.ts) from public.ohlcv_1min b
                            where b.symbol = complete_up_to.symbol and b.ts >= tickstock.recent_since())
                or clock < tickstock.recent_since()
                  and exists (select from tickstock.old_bars(complete_up_to.symbol, clock, clock + interval '1 minute'))
              then clock + interval '1 minute' else clock end;
end;
comment on function tickstock.complete_up_to(text, timestamptz) is
  'Scanners take a symbol''s candles for complete that complete up to then: the feed''s clock (clock: latest_minute()), or a minute later if the symbol''s own bar of that minute is there: the feed has then sent the last one of a candle that ends with it.';

-- Before 0.2 was released. Here, since nothing uses it any more.
drop function if exists tickstock.old_bars(text, timestamptz, timestamptz, timestamptz);

create or replace function tickstock.take_candles(most integer)
returns table (timeframe text, symbol text, ts timestamptz)
language plpgsql
as $$
#variable_conflict use_column
declare
  clock constant timestamptz := public.latest_minute();
  mine constant integer[] := tickstock.take_shards(most);
begin
  return query
  with ready as materialized (
    -- A candle is complete when a bar of a later minute shows that its last minute has been sent.
    select q.shard, q.ready_at, q.id, cardinality(q.symbols) as size,
      sum(cardinality(q.symbols)) over (order by q.ready_at, q.id) as so_far
    from tickstock.scan_queue q where q.shard = any (mine) and q.ready_at <= clock
  ), batch as (
    delete from tickstock.scan_queue q using ready r
    where q.shard = r.shard and q.ready_at = r.ready_at and q.id = r.id and r.so_far - r.size < most
    returning q.shard, q.timeframe, q.symbols, q.starts
  ), counted as (
    update tickstock.scan_shards s set taken = s.taken + 1 where s.shard in (select b.shard from batch b)
  ), taken as materialized (
    select distinct b.timeframe, c.symbol, c.ts from batch b cross join lateral unnest(b.symbols, b.starts) c (symbol, ts)
  ), time as materialized (
    -- Thousands of symbols share a few times, and what follows from these is worth computing once.
    -- A candle whose last part is complete is complete itself; otherwise the feed's clock will say when.
    select p.timeframe as part, p.ts as part_starts, t.timeframe, c.ts,
      case when public.candle_complete_at(p.timeframe, p.ts) >= public.candle_complete_at(t.timeframe, c.ts)
           then '-infinity' else public.candle_complete_at(t.timeframe, c.ts) end as ready_at
    from (select distinct k.timeframe, k.ts from taken k) p
    join public.timeframes t on t.made_from = p.timeframe
    cross join lateral (select public.candle_start(t.timeframe, p.ts) as ts) c
    -- What lies outside the session is no part of the day.
    where t.timeframe <> 'daily' or exists (
      select from public.trading_days d
      where d.day = (p.ts at time zone 'America/New_York')::date and p.ts >= d.opens_at and p.ts < d.closes_at)
  ), larger as materialized (
    select t.timeframe, k.symbol, t.ts, min(
      -- What comes late into a candle whose last minute is there need not wait for the clock either.
      case when t.ready_at > clock and t.ready_at <= own.up_to then '-infinity' else t.ready_at end) as ready_at
    from taken k join time t on t.part = k.timeframe and t.part_starts = k.ts
    cross join lateral tickstock.complete_up_to(k.symbol, clock) own
    group by 1, 2, 3
  ), complete as materialized (
    -- Once for each time, not for each candle: offset 0 and materialized see to that.
    select p.timeframe, p.ts, public.candle_complete_at(p.timeframe, p.ts) as complete_at
    from (select distinct k.timeframe, k.ts from taken k where k.timeframe <> '1min' offset 0) p
  ), early as materialized (
    -- Taken before the feed's clock has passed them, since their last minute is there: their other entries, which
    -- wait for the clock, have nothing to add.
    select k.timeframe, k.symbol, k.ts, tickstock.shard_of(k.symbol) as shard, c.complete_at
    from taken k join complete c using (timeframe, ts)
    where c.complete_at > clock
  ), waiting as (
    delete from tickstock.scan_queue q using (select distinct e.shard, e.timeframe, e.complete_at from early e) e
    where q.shard = e.shard and q.ready_at = e.complete_at and q.timeframe = e.timeframe
    returning q.shard, q.timeframe, q.ready_at, q.symbols, q.starts
  ), queued as (
    insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
    select n.shard, n.timeframe, n.ready_at, array_agg(n.symbol), array_agg(n.ts)
    from (
      select tickstock.shard_of(l.symbol) as shard, l.timeframe, l.ready_at, l.symbol, l.ts from larger l
      union
      select w.shard, w.timeframe, w.ready_at, c.symbol, c.ts from waiting w cross join lateral unnest(w.symbols, w.starts) c (symbol, ts)
      where not exists (select from early e where e.timeframe = w.timeframe and e.symbol = c.symbol and e.ts = c.ts)) n
    group by 1, 2, 3 order by 3, 2, 1
  )
  -- A larger candle that has come together with one of its parts has just been queued again, after it.
  select k.timeframe, k.symbol, k.ts from taken k
  except
  select l.timeframe, l.symbol, l.ts from larger l
  order by 1, 2, 3;
end $$;
comment on function tickstock.take_candles(integer) is
  'Takes complete candles of free shares from the queue, about that many, and queues the larger candles they are parts of. Several scanners may call it at the same time; a rollback gives the candles back.';

-- One function a timeframe: a plan of its own, on the one relation it needs.
drop function if exists tickstock.windows_1min(text[], timestamptz[], integer), tickstock.windows_5min(text[], timestamptz[], integer),
  tickstock.windows_15min(text[], timestamptz[], integer), tickstock.windows_30min(text[], timestamptz[], integer),
  tickstock.windows_1hour(text[], timestamptz[], integer), tickstock.windows_4hour(text[], timestamptz[], integer),
  tickstock.windows_daily(text[], timestamptz[], integer), tickstock.windows_weekly(text[], timestamptz[], integer),
  tickstock.windows_monthly(text[], timestamptz[], integer);
do $$
declare
  tf record;
begin
  for tf in
    -- Of the materialized candles at most the marked ones are gone, so many in a half hour.
    select timeframe, greatest(1, (extract(epoch from interval '30 minutes') / extract(epoch from width))::integer) as in_a_mark
    from timeframes where timeframe <> '1min'
  loop
    execute format($q$
      create or replace function tickstock.windows_%1$s(symbols text[], since timestamptz[], until timestamptz[], before integer, after integer)
      returns table (nth bigint, starts float8[], opens float8[], highs float8[], lows float8[], closes float8[], volumes float8[], prices text)
      language sql stable
      begin atomic
        select u.nth, w.* from unnest(symbols, since, until) with ordinality u (symbol, since, until, nth)
        cross join (
          select l as clock, public.candle_start('%1$s', l) as starts, public.candle_complete_at('%1$s', public.candle_start('%1$s', l)) as completes,
            tickstock.complete_until('%1$s') as complete_until
          from public.latest_minute() l offset 0) feed
        cross join lateral (
          select %2$s * (select count(distinct d.granule) from tickstock.dirty d where d.symbol = u.symbol) as candles) marked
        -- Without bounds a view makes all candles of the symbol for the last few.
        cross join lateral (
          select coalesce((select m.ts from tickstock.candles_%1$s m where m.symbol = u.symbol and m.ts < u.since
                           order by m.ts desc offset before + marked.candles limit 1), '-infinity') as since,
            coalesce((select m.ts from tickstock.candles_%1$s m where m.symbol = u.symbol and m.ts > u.until
                      order by m.ts offset after + marked.candles limit 1), 'infinity') as until) b
        cross join lateral (
          -- The candle at the feed's clock, if it is complete. Once a symbol, not once a candle: offset 0.
          select case when feed.completes <= own.up_to then feed.starts end as starts
          from tickstock.complete_up_to(u.symbol, feed.clock) own offset 0) latest
        cross join lateral (
          -- All in one order, for which one sort is enough.
          select array_agg(date_part('epoch', c.ts) order by c.ts) as starts,
            array_agg(c.open::float8 order by c.ts) as opens, array_agg(c.high::float8 order by c.ts) as highs,
            array_agg(c.low::float8 order by c.ts) as lows, array_agg(c.close::float8 order by c.ts) as closes,
            array_agg(c.volume::float8 order by c.ts) as volumes,
            -- With all their digits, for the events.
            string_agg(c.close::text, ' ' order by c.ts) filter (where c.ts >= u.since) as prices
          from public.ohlcv_%1$s c
          where c.symbol = u.symbol and c.ts >= b.since and c.ts <= b.until
            -- Up to until they are known to be complete: their last minute is there, though others' may not be.
            and c.ts <= greatest(u.until, latest.starts, feed.complete_until)) w;
      end $q$, tf.timeframe, tf.in_a_mark);
    execute format('comment on function tickstock.windows_%s(text[], timestamptz[], timestamptz[], integer, integer) is %L', tf.timeframe,
      format('For each symbol its %s candles from since to until, which are known to be complete, at least so many complete ones before and after these as far as there are any, oldest first, as arrays for the pattern functions. prices: the closes from since on, exactly.', tf.timeframe));
  end loop;
end $$;

-- Of hundreds of chunks only those are planned for that are known by a time in the statement.
create or replace function tickstock.windows_of_bars(back_to timestamptz) returns text
language sql stable
set datestyle = 'ISO'  -- as in tickstock.move_recent(): the time is put into a statement
return format($q$
  select u.nth, w.* from unnest($1, $2, $3) with ordinality u (symbol, since, until, nth)
  cross join lateral (
    select (select m.ts from public.ohlcv_1min m where m.symbol = u.symbol and m.ts < u.since and m.ts >= %1$L
            order by m.ts desc offset $4 limit 1) as since,
      coalesce((select m.ts from public.ohlcv_1min m where m.symbol = u.symbol and m.ts > u.until and m.ts >= %1$L
                order by m.ts offset $5 limit 1), 'infinity') as until) b
  cross join lateral (
    -- All in one order, for which one sort is enough.
    select array_agg(date_part('epoch', c.ts) order by c.ts), array_agg(c.open::float8 order by c.ts),
      array_agg(c.high::float8 order by c.ts), array_agg(c.low::float8 order by c.ts), array_agg(c.close::float8 order by c.ts),
      array_agg(c.volume::float8 order by c.ts),
      -- With all their digits, for the events.
      string_agg(c.close::text, ' ' order by c.ts) filter (where c.ts >= u.since)
    from public.ohlcv_1min c
    where c.symbol = u.symbol and c.ts >= coalesce(b.since, '-infinity') and c.ts <= b.until and c.ts >= %1$L) w
  where u.nth = any ($6) and (%1$L = '-infinity'::timestamptz or u.since >= %1$L and (b.since is not null
    -- Each bar lies in a 4hour candle, or in a marked half hour: it has none before.
    or not exists (select from tickstock.candles_4hour c where c.symbol = u.symbol and c.ts < %1$L)
      and not exists (select from tickstock.dirty d where d.symbol = u.symbol and d.granule < %1$L))) $q$, back_to);
comment on function tickstock.windows_of_bars(timestamptz) is
  'The statement of tickstock.windows_1min() that reads no bar before back_to: $1 to $5 are its arguments, $6 are the numbers of the symbols asked about. Symbols with too few bars from there on, and more before, are left out.';

create or replace function tickstock.windows_1min(symbols text[], since timestamptz[], until timestamptz[], before integer, after integer)
returns table (nth bigint, starts float8[], opens float8[], highs float8[], lows float8[], closes float8[], volumes float8[], prices text)
language plpgsql stable
as $$
declare
  latest constant timestamptz := public.latest_minute();
  missing bigint[] := array(select generate_subscripts(symbols, 1));
  found_now bigint[];
  back_to timestamptz;
begin
  -- Most symbols have as many bars in the recent chunks; the others are looked up farther and farther back.
  foreach back_to in array array[tickstock.recent_since(), latest - interval '60 days', latest - interval '1 year', '-infinity'] loop
    exit when missing = '{}';
    found_now := '{}';
    for nth, starts, opens, highs, lows, closes, volumes, prices in
      execute tickstock.windows_of_bars(back_to) using symbols, since, until, before, after, missing
    loop
      found_now := found_now || nth;
      return next;
    end loop;
    missing := array(select unnest(missing) except select unnest(found_now));
  end loop;
end $$;
comment on function tickstock.windows_1min(text[], timestamptz[], timestamptz[], integer, integer) is
  'For each symbol its minute bars from since to until, at least so many before and after these as far as there are any, oldest first, as arrays for the pattern functions. prices: the closes from since on, exactly.';

create or replace function tickstock.state_of_shares(symbols text[], out changes text, out taken bigint[], out shards integer[])
language sql stable
begin atomic
  select (select format('%s/%s', count(*), max(u.id)) from tickstock.unqueued_changes u),
    (select array_agg(s.taken order by s.shard) from tickstock.scan_shards s),
    (select array_agg(tickstock.shard_of(u.symbol) order by u.nth) from unnest(symbols) with ordinality u (symbol, nth));
end;
comment on function tickstock.state_of_shares(text[]) is
  'By which a scanner sees whether windows that it keeps are still right: changes differs once bars have changed past the queue, taken says of each share, from 0 on, how often candles of it were taken. shards: the share of each of these symbols.';

-- Windows that a scanner keeps grow by a few candles, those that it judges the last of them.
-- Once their last argument had times.
drop function if exists tickstock.fresh_1min(text[], float8[], timestamptz[]), tickstock.fresh_5min(text[], float8[], timestamptz[]);
do $$
declare
  tf record;
begin
  for tf in select timeframe, width from timeframes loop
    execute format($q$
      create or replace function tickstock.fresh_%1$s(symbols text[], after float8[], until float8[])
      returns table (changes text, nth float8[], starts float8[], opens float8[], highs float8[], lows float8[], closes float8[],
                     volumes float8[], prices text)
      language sql stable
      begin atomic
        select (select s.changes from tickstock.state_of_shares('{}') s), array_agg(n.nth), array_agg(date_part('epoch', n.ts)),
          array_agg(n.open::float8), array_agg(n.high::float8), array_agg(n.low::float8), array_agg(n.close::float8),
          array_agg(n.volume::float8), string_agg(n.close::text, ' ')
        from (
          select u.nth::float8, c.ts, c.open, c.high, c.low, c.close, c.volume
          from unnest(symbols, after, until) with ordinality u (symbol, after, until, nth)
          cross join lateral (
            select o.ts, o.open, o.high, o.low, o.close, o.volume from %2$s offset 0) c
          order by u.nth, c.ts) n;
      end $q$, tf.timeframe, case
        when tf.timeframe = '1min' then 'tickstock.bars_between(u.symbol, to_timestamp(u.after), to_timestamp(u.until), tickstock.recent_since()) o'
        when tf.width <= interval '30 minutes' then format($f$(
            -- As the view makes them, which reads the bars of whole half hours.
            select date_bin(%1$L, b.ts, '2000-01-03 00:00+00') as ts, (array_agg(b.open order by b.ts))[1] as open, max(b.high) as high,
              min(b.low) as low, (array_agg(b.close order by b.ts desc))[1] as close, sum(b.volume) as volume
            from tickstock.bars_between(u.symbol, to_timestamp(u.after) + %2$L, to_timestamp(u.until) + %2$L, tickstock.recent_since()) b
            group by 1) o $f$, tf.width, tf.width - interval '1 minute')
        else format('public.ohlcv_%s o where o.symbol = u.symbol and o.ts > to_timestamp(u.after) and o.ts <= to_timestamp(u.until)', tf.timeframe) end);
    execute format('comment on function tickstock.fresh_%s(text[], float8[], float8[]) is %L', tf.timeframe,
      format('%s candles of each symbol after a time up to those that begin at another (seconds since 1970, UTC), by symbol, oldest first, as arrays; nth: of which symbol, from 1 on. changes: as tickstock.state_of_shares() tells in this very snapshot. prices: the closes, exactly.', tf.timeframe));
  end loop;
end $$;

create or replace function tickstock.pattern_candles(timeframe text, symbols text[], since timestamptz[], until timestamptz[], candles integer, after integer)
returns table (symbol text, ts timestamptz, judged timestamptz, back integer, open numeric, high numeric, low numeric, close numeric,
               volume numeric, session text)
language plpgsql stable
-- Taken for a few, they would be gone through as a whole for each candle that is judged.
rows 100000
as $$
begin
  return query execute format($q$
    with series as materialized (
      select w.nth as series, u.symbol, u.since, u.until, to_timestamp(c.starts) as ts, c.n, c.open, c.high, c.low, c.close, c.volume
      from tickstock.%1$I($1, $2, $3, $4 - 1, $5) w
      join unnest($1, $2, $3) with ordinality u (symbol, since, until, nth) using (nth)
      cross join lateral unnest(w.starts, w.opens, w.highs, w.lows, w.closes, w.volumes)
        with ordinality c (starts, open, high, low, close, volume, n)
    ), judged as (
      select s.* from (select s.*, count(*) filter (where s.ts > s.until) over (partition by s.series order by s.n) as nth_after from series s) s
      where s.ts >= s.since and s.nth_after <= $5
    )
    select c.symbol, c.ts, j.ts, (j.n - c.n)::integer, c.open::numeric, c.high::numeric, c.low::numeric, c.close::numeric, c.volume::numeric, %2$s
    from judged j join series c on c.series = j.series and c.n > j.n - $4 and c.n <= j.n $q$,
    'windows_' || timeframe, case (select t.sessions from public.timeframes t where t.timeframe = pattern_candles.timeframe)
               when 'all' then 'public.session_of(c.ts)' else $s$'regular'$s$ end)
  using symbols, since, until, candles, after;
end $$;
comment on function tickstock.pattern_candles(text, text[], timestamptz[], timestamptz[], integer, integer) is
  'The relation candles of patterns in SQL: for each complete candle from since to until, and for so many after, that candle (back = 0) and those before it (back = 1 …), together so many. session: of the candle''s first minute.';

-- Up to version 0.1 it knew neither strength nor retraction; then, whether there was a Redis; then it took a row for each hit.
drop function if exists tickstock.record_events(text[], text[], text[], timestamptz[], text[], numeric[], jsonb[], boolean),
  tickstock.record_events(jsonb, json, json, boolean), tickstock.record_events(jsonb, json, json);
create or replace function tickstock.record_events(
  asked jsonb, judged json, candle_spans float8[], candle_starts float8[], candle_prices text, patterns text[],
  hit_candles float8[], hit_patterns float8[], hit_directions float8[], hit_strengths float8[], hit_candles_from float8[],
  hit_details jsonb, out made bigint, out retracted bigint)
language plpgsql
-- Tens of thousands of events stay in memory, and are looked up in hashes, whatever the planner thinks of their number.
set work_mem = '64MB'
set enable_nestloop = off
set jit = off
as $$
declare
  clock constant timestamptz := public.feed_clock();
begin
  -- Changes become visible in the order of their numbers: who has read up to one has missed none before it.
  perform pg_advisory_xact_lock(hashtext('tickstock.events'));
  with span as materialized (
    select * from rows from (json_to_recordset(judged) as (timeframe text, symbol text, since timestamptz, until timestamptz))
      with ordinality as j (timeframe, symbol, since, until, nth)
  ), candle as materialized (
    select c.nth, s.timeframe, s.symbol, to_timestamp(c.starts) as ts, c.price::numeric as price
    from unnest(candle_spans, candle_starts, string_to_array(candle_prices, ' ')) with ordinality c (span, starts, price, nth)
    join span s on s.nth = c.span::bigint
  ), hit as materialized (
    select c.timeframe, c.symbol, c.ts, a.pattern, case h.direction when 1 then 'long' when -1 then 'short' when 0 then 'neutral' end as direction,
      c.price, h.strength, h.details, to_timestamp(h.candles_from) as candles_from
    from rows from (unnest(hit_candles), unnest(hit_patterns), unnest(hit_directions), unnest(hit_strengths),
                    unnest(hit_candles_from), jsonb_array_elements(hit_details))
      as h (candle, pattern, direction, strength, candles_from, details)
    join candle c on c.nth = h.candle::bigint
    join unnest(patterns) with ordinality a (pattern, nth) on a.nth = h.pattern::bigint
  ), time as materialized (
    -- Many events share a few times.
    select d.timeframe, d.ts, public.candle_complete_at(d.timeframe, d.ts) as complete_at,
      public.candle_complete_at(d.timeframe, public.candle_start(d.timeframe, n.starts)) as next_complete_at
    from (select distinct h.timeframe, h.ts from hit h) d
    cross join lateral (select public.candle_end(d.timeframe, d.ts) as ends) c
    -- The next candle is the next one that can have bars: after Friday's comes Monday's.
    cross join lateral (
      select case when public.session_of(c.ends) <> 'closed' then c.ends else coalesce((
        select min(s.starts) from public.sessions s
        where s.day between (c.ends at time zone 'America/New_York')::date and (c.ends at time zone 'America/New_York')::date + 10
          and s.starts >= c.ends), c.ends) end as starts) n
  ), asking as materialized (
    select t.key as timeframe, p.key as pattern, p.value as parameters
    from jsonb_each(asked) t cross join lateral jsonb_each(t.value) p
  ), here as materialized (
    -- Symbol by symbol, whatever the statistics say: they know nothing of the minute that is being scanned.
    select e.* from span j cross join lateral (
      select e.id, e.timeframe, e.symbol, e.ts, e.pattern from public.events e
      where e.symbol = j.symbol and e.ts >= j.since and e.ts <= j.until and e.timeframe = j.timeframe and e.retracted_at is null
      offset 0) e
    -- Most candles are judged for the first time, and nothing is there yet.
    where exists (select from public.events n where n.ts >= (select min(since) from span) and n.ts <= (select max(until) from span))
      and asked -> e.timeframe ? e.pattern
  ), undone as (
    update public.events e
    set retracted_at = clock_timestamp(), change = nextval('public.events_change_seq')
    where e.id = any (array(
      -- "not in" looks them up in a hash, "not exists" might go through all of them for each.
      select h.id from here h
      where (h.timeframe, h.symbol, h.ts, h.pattern) not in (select i.timeframe, i.symbol, i.ts, i.pattern from hit i)))
    returning e as event
  ), written as (
    insert into public.events as e (pattern, symbol, timeframe, ts, direction, price, strength, details, parameters, candles_from, lag, late)
    select h.pattern, h.symbol, h.timeframe, h.ts, h.direction, h.price, h.strength, h.details, a.parameters, h.candles_from,
      greatest(clock - t.complete_at, interval '0'), coalesce(clock >= t.next_complete_at, false)
    from hit h join time t using (timeframe, ts) join asking a using (timeframe, pattern)
    order by h.ts, h.symbol, h.timeframe, h.pattern
    on conflict on constraint events_once do update set
      direction = excluded.direction, price = excluded.price, strength = excluded.strength, details = excluded.details,
      parameters = excluded.parameters, candles_from = excluded.candles_from, change = excluded.change,
      -- It is made again, from other bars than at first.
      retracted_at = null, detected_at = excluded.detected_at, lag = excluded.lag, late = excluded.late
    where e.retracted_at is not null
      or (e.direction, e.price, e.strength, e.details, e.parameters, e.candles_from) is distinct from
         (excluded.direction, excluded.price, excluded.strength, excluded.details, excluded.parameters, excluded.candles_from)
    returning e as event
  ), changed as (
    select false as stands, u.event from undone u union all select true, w.event from written w
  ), told as (
    select c.stands, pg_notify('tickstock_patterns', tickstock.event_payload(c.event)) from changed c
  )
  select count(*) filter (where t.stands), count(*) filter (where not t.stands) into made, retracted from told t;
end $$;
comment on function tickstock.record_events(jsonb, json, float8[], float8[], text, text[], float8[], float8[], float8[], float8[], float8[], jsonb) is
  'Makes events what scanning has found in the candles judged: new ones are made, those that are no longer found are retracted. asked: {timeframe: {pattern: its parameters}}; other patterns'' events are left alone. judged: [{timeframe, symbol, since, until}]. candle_…: of each candle the number of its span, from 1 on, its start (seconds since 1970, UTC), and the closes, with spaces between. hit_…: of each event the numbers of its candle and pattern, from 1 on, 1 long, -1 short or 0 neutral, its strength, the start of the first candle looked at, and its details. Notifies the channel tickstock_patterns at commit. To be called last in a transaction: until its end, other scanners wait with theirs.';
