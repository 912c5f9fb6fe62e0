-- How scanners share the work: candles are taken from the queue by whoever comes first, and what is
-- taken, what follows and what is found is one transaction. A scanner that dies gives its share back.

create or replace function tickstock.take_candles(most integer)
returns table (timeframe text, symbol text, ts timestamptz)
language sql
-- The queue's size jumps, and no plan may depend on an old guess of it.
set enable_seqscan = off
begin atomic
  with ready as materialized (
    -- A candle is complete when a bar of a later minute shows that its last minute has been sent.
    select q.timeframe, q.symbol, q.ts from tickstock.scan_queue q
    where q.ready_at <= (select max(b.ts) from public.ohlcv_1min b)
    order by q.ready_at, q.id limit most for update skip locked
  ), taken as (
    -- With all entries of these candles: what they told has been seen, and need not be scanned again.
    delete from tickstock.scan_queue where ctid = any (array(
      select q.ctid from (select distinct r.timeframe, r.symbol, r.ts from ready r) c
      cross join lateral (
        select e.ctid from tickstock.scan_queue e
        where e.symbol = c.symbol and e.timeframe = c.timeframe and e.ts = c.ts for update skip locked) q))
    returning timeframe, symbol, ts
  ), time as materialized (
    -- Thousands of symbols share a few times, and what follows from these is worth computing once.
    -- A candle whose last part is complete is complete itself; otherwise the feed's clock will say when.
    select p.timeframe as part, p.ts as part_starts, t.timeframe, c.ts,
      case when candle_complete_at(p.timeframe, p.ts) >= candle_complete_at(t.timeframe, c.ts)
           then '-infinity' else candle_complete_at(t.timeframe, c.ts) end as ready_at
    from (select distinct k.timeframe, k.ts from taken k) p
    join public.timeframes t on t.made_from = p.timeframe
    cross join lateral (select candle_start(t.timeframe, p.ts) as ts) c
    -- What lies outside the session is no part of the day.
    where t.timeframe <> 'daily' or exists (
      select from public.trading_days d
      where d.day = (p.ts at time zone 'America/New_York')::date and p.ts >= d.opens_at and p.ts < d.closes_at)
  ), larger as materialized (
    select distinct t.timeframe, k.symbol, t.ts, t.ready_at
    from taken k join time t on t.part = k.timeframe and t.part_starts = k.ts
  ), queued as (
    insert into tickstock.scan_queue (timeframe, symbol, ts, ready_at)
    select l.timeframe, l.symbol, l.ts, l.ready_at from larger l order by l.ready_at, l.timeframe, l.symbol, l.ts
  )
  -- A larger candle that has come together with one of its parts has just been queued again, after it.
  select k.timeframe, k.symbol, k.ts from taken k
  except
  select l.timeframe, l.symbol, l.ts from larger l
  order by 1, 2, 3;
end;
comment on function tickstock.take_candles(integer) is
  'Takes complete candles from the queue, those of its first so many entries, each with all its entries, and queues the larger candles they are parts of. Several scanners may call it at the same time; a rollback gives the candles back.';

-- One function a timeframe: a plan of its own, on the one relation it needs.
do $$
declare
  tf record;
begin
  for tf in
    select timeframe,
      -- Where to begin to read. Without a lower bound a view makes all candles of the symbol for the last few.
      case when timeframe = '1min' then $q$select '-infinity'::timestamptz as since$q$
      else format($q$
        -- Of the last materialized candles at most the dirty ones are gone, %2$s in a half hour.
        select coalesce((
          select m.ts from tickstock.candles_%1$s m where m.symbol = u.symbol and m.ts <= u.ts order by m.ts desc
          offset length - 1 + %2$s * (select count(distinct d.granule) from tickstock.dirty d where d.symbol = u.symbol)
          limit 1), '-infinity') as since $q$,
        timeframe, greatest(1, (extract(epoch from interval '30 minutes') / extract(epoch from width))::integer))
      end as bound
    from timeframes
  loop
    execute format($q$
      create or replace function tickstock.windows_%1$s(symbols text[], ends timestamptz[], length integer)
      returns table (symbol text, ts timestamptz, price numeric, starts float8[], opens float8[], highs float8[],
                     lows float8[], closes float8[], volumes float8[])
      language sql stable
      begin atomic
        select u.symbol, u.ts, w.price, w.starts, w.opens, w.highs, w.lows, w.closes, w.volumes
        from unnest(symbols, ends) u (symbol, ts)
        cross join lateral (%2$s) b
        cross join lateral (
          -- All in one order, for which one sort is enough.
          select max(c.close) filter (where c.ts = u.ts) as price,
            array_agg(date_part('epoch', c.ts) order by c.ts) as starts,
            array_agg(c.open::float8 order by c.ts) as opens, array_agg(c.high::float8 order by c.ts) as highs,
            array_agg(c.low::float8 order by c.ts) as lows, array_agg(c.close::float8 order by c.ts) as closes,
            array_agg(c.volume::float8 order by c.ts) as volumes
          from (select * from public.ohlcv_%1$s o where o.symbol = u.symbol and o.ts >= b.since and o.ts <= u.ts
                order by o.ts desc limit length) c) w
        where w.price is not null;
      end $q$, tf.timeframe, tf.bound);
    execute format('comment on function tickstock.windows_%s(text[], timestamptz[], integer) is %L', tf.timeframe,
      format('For each symbol its last %s candles up to the one that begins at ends, oldest first, as arrays for the pattern functions; no row where that candle does not exist.', tf.timeframe));
  end loop;
end $$;

create or replace function tickstock.record_events(patterns text[], symbols text[], timeframes text[], starts timestamptz[],
                                                   directions text[], prices numeric[], details jsonb[], to_redis boolean)
returns bigint
language plpgsql
as $$
declare
  recorded bigint;
begin
  -- Ids become visible in their order: who has read up to one has missed none before it.
  perform pg_advisory_xact_lock(hashtext('tickstock.events'));
  with fresh as (
    insert into public.events as e (pattern, symbol, timeframe, ts, direction, price, details, published_at)
    select u.*, case when not to_redis then clock_timestamp() end
    from unnest(patterns, symbols, timeframes, starts, directions, prices, details)
      u (pattern, symbol, timeframe, ts, direction, price, details)
    order by u.ts, u.symbol, u.timeframe, u.pattern
    on conflict on constraint events_once do nothing
    returning e as event
  )
  select count(pg_notify('tickstock_patterns', tickstock.event_payload(f.event)::text)) into recorded from fresh f;
  return recorded;
end $$;
comment on function tickstock.record_events(text[], text[], text[], timestamptz[], text[], numeric[], jsonb[], boolean) is
  'Records events, except those there already, notifies the channel tickstock_patterns at commit, and returns how many were new. To be called last in a transaction: until its end, other scanners wait with theirs. to_redis: leave them marked as unpublished for the publisher.';
