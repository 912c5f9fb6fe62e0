-- Retention. Candles outlive their bars: what they are made of is frozen at the moment the bars go.

create or replace function tickstock.set_bars_since(since timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('create or replace function tickstock.bars_since() returns timestamptz
                  language sql stable parallel safe return %L::timestamptz', since);
end $$;
comment on function tickstock.set_bars_since(timestamptz) is 'Sets tickstock.bars_since(). Only drop_bars() may.';
revoke execute on function tickstock.set_bars_since(timestamptz) from public;

create or replace procedure drop_bars(before timestamptz)
language plpgsql
as $$
declare
  -- Whole weeks, as the chunks are.
  since timestamptz := date_bin('7 days', before, '1970-01-01 00:00+00');
begin
  if since <= tickstock.bars_since() then
    return;
  end if;
  loop
    -- Each time: marks of a time that the feed's clock has not reached are not refreshed.
    if (since <= public.latest_minute() - interval '7 days') is not true then
      raise exception 'drop_bars(%) would drop bars of the feed''s last week: give a time before %', before,
        coalesce(public.latest_minute() - interval '7 days', '-infinity');
    end if;
    call public.ohlcv_refresh();
    -- No writer may be under way: what it changes would be gone before it is in its candles.
    lock table public.ohlcv_1min in share row exclusive mode;
    exit when not exists (select from tickstock.dirty where granule < since);
    commit;
  end loop;
  perform tickstock.set_bars_since(since);
  if public.tickstock_engine() <> 'postgres' then
    execute format('select drop_chunks(%L, older_than => %L::timestamptz)', 'public.ohlcv_1min', since);
  end if;
  commit;
  -- Without chunks, and for what a chunk of another width has left: bars that no candle asks for any more.
  loop
    delete from public.ohlcv_1min b
    using (select symbol, ts from public.ohlcv_1min where ts < since limit 100000) old
    where b.symbol = old.symbol and b.ts = old.ts and b.ts < since;
    exit when not found;
    commit;
  end loop;
  delete from public.ohlcv_revisions where ts < since;
  delete from public.empty_minutes where ends <= since;
end $$;
comment on procedure drop_bars(timestamptz) is
  'Drops minute bars before this moment, in whole weeks. Their candles are brought up to date first, and stay for good; later bars, corrections and changes of the calendar in that time are refused. Call it outside a transaction block. Example: call drop_bars(now() - interval ''2 years'');';
