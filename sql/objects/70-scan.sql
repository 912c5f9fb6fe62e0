-- How scanners share the work: candles are taken from the queue by whoever comes first, and what was
-- taken, what was found and what follows is one transaction. A scanner that dies gives its share back.

create or replace function tickstock.take_candles(most integer)
returns table (timeframe text, symbol text, ts timestamptz)
language sql
begin atomic
  with taken as (
    -- A candle is taken when it is complete: when a bar of a later minute shows that its last minute has been sent.
    delete from tickstock.scan_queue where ctid = any (array(
      select ctid from tickstock.scan_queue
      where ready_at <= (select max(ts) from public.ohlcv_1min)
      order by ready_at, id limit most for update skip locked))
    returning timeframe, symbol, ts
  )
  select distinct timeframe, symbol, ts from taken;
end;
comment on function tickstock.take_candles(integer) is
  'Takes up to that many complete candles from the queue, each once. Several scanners may call it at the same time; a rollback gives the candles back.';

create or replace function tickstock.queue_larger(timeframes text[], symbols text[], starts timestamptz[]) returns bigint
language sql
begin atomic
  -- A candle whose last part is complete is complete itself; otherwise the feed's clock will say when.
  with larger as (
    select distinct t.timeframe, u.symbol, candle_start(t.timeframe, u.ts) as ts,
      case when candle_complete_at(u.timeframe, u.ts) >= candle_complete_at(t.timeframe, candle_start(t.timeframe, u.ts))
           then '-infinity' else candle_complete_at(t.timeframe, candle_start(t.timeframe, u.ts)) end as ready_at
    from unnest(timeframes, symbols, starts) u (timeframe, symbol, ts)
    join public.timeframes t on t.made_from = u.timeframe
  ), queued as (
    insert into tickstock.scan_queue (timeframe, symbol, ts, ready_at)
    select timeframe, symbol, ts, ready_at from larger order by ready_at, timeframe, symbol, ts
    returning 1
  )
  select count(*) from queued;
end;
comment on function tickstock.queue_larger(text[], text[], timestamptz[]) is
  'Queues, for candles that were just scanned, the candles of the next timeframe that contain them.';

-- One function a timeframe: a plan of its own, on the one relation it needs.
do $$
declare
  tf text;
begin
  for tf in select timeframe from timeframes loop
    execute format($q$
      create or replace function tickstock.windows_%1$s(symbols text[], ends timestamptz[], length integer)
      returns table (symbol text, ts timestamptz, price numeric, starts float8[], opens float8[], highs float8[],
                     lows float8[], closes float8[], volumes float8[])
      language sql stable
      begin atomic
        select u.symbol, u.ts, w.price, w.starts, w.opens, w.highs, w.lows, w.closes, w.volumes
        from unnest(symbols, ends) u (symbol, ts)
        cross join lateral (
          select max(c.ts) as last, (array_agg(c.close order by c.ts desc))[1] as price,
            array_agg(extract(epoch from c.ts)::float8 order by c.ts) as starts,
            array_agg(c.open::float8 order by c.ts) as opens, array_agg(c.high::float8 order by c.ts) as highs,
            array_agg(c.low::float8 order by c.ts) as lows, array_agg(c.close::float8 order by c.ts) as closes,
            array_agg(c.volume::float8 order by c.ts) as volumes
          from (select * from public.ohlcv_%1$s o where o.symbol = u.symbol and o.ts <= u.ts
                order by o.ts desc limit length) c) w
        where w.last = u.ts;
      end $q$, tf);
    execute format('comment on function tickstock.windows_%s(text[], timestamptz[], integer) is %L', tf,
      format('For each symbol its last %s candles up to the one that begins at ends, oldest first, as arrays for the pattern functions; no row where that candle does not exist.', tf));
  end loop;
end $$;

create or replace function tickstock.record_event(pattern text, symbol text, timeframe text, ts timestamptz,
                                                  direction text, price numeric, details jsonb, to_redis boolean)
returns bigint
language plpgsql
as $$
declare
  event public.events;
begin
  insert into public.events as e (pattern, symbol, timeframe, ts, direction, price, details, published_at)
  values (record_event.pattern, record_event.symbol, record_event.timeframe, record_event.ts, record_event.direction,
          record_event.price, record_event.details, case when not to_redis then clock_timestamp() end)
  on conflict on constraint events_once do nothing
  returning * into event;
  if event.id is not null then
    perform pg_notify('tickstock_patterns', tickstock.event_payload(event)::text);
  end if;
  return event.id;
end $$;
comment on function tickstock.record_event(text, text, text, timestamptz, text, numeric, jsonb, boolean) is
  'Records an event, unless it is there already (then null), and notifies the channel tickstock_patterns at commit. to_redis: leave it marked as unpublished for the publisher.';
