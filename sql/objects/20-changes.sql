-- What a change of a bar sets off: its half hour becomes dirty, what the bar was is kept, the bar is
-- queued for the scanners, and listeners are woken. Every write path goes through here: COPY, INSERT,
-- MERGE, UPDATE, DELETE.

create or replace function tickstock.shard_of(symbol text) returns integer
language sql immutable parallel safe
return pg_catalog.hashtext(symbol) & 31;
comment on function tickstock.shard_of(text) is 'The share of the symbols, in tickstock.scan_shards, that this one belongs to.';

create or replace function tickstock.note_unqueued_change() returns void
language sql
begin atomic
  insert into tickstock.unqueued_changes default values;
end;
comment on function tickstock.note_unqueued_change() is
  'Tells scanners that bars change past the queue: what they keep of them is void once this transaction is committed.';

-- With the owner's rights: who writes bars can neither forge nor remove marks and revisions.
create or replace function tickstock.after_write() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  scan boolean := current_setting('tickstock.scan_queue', true) is distinct from 'off';
begin
  if tickstock.bars_since() > '-infinity' and exists (select from new_bars where ts < tickstock.bars_since()) then
    raise exception 'bars before % have been dropped, and their candles are final: a bar of % can''t be stored',
      tickstock.bars_since(), (select min(ts) from new_bars) using errcode = 'check_violation';
  end if;
  if tg_op = 'INSERT' then
    insert into tickstock.dirty (symbol, granule, since)
    select symbol, public.candle_start('30min', ts), min(ts) from new_bars group by 1, 2;
  else
    insert into public.ohlcv_revisions (symbol, ts, replaced_by, open, high, low, close, volume, vwap, trades)
    select o.symbol, o.ts, coalesce(nullif(current_setting('tickstock.source', true), ''), 'sql'),
      o.open, o.high, o.low, o.close, o.volume, o.vwap, o.trades
    from old_bars o join new_bars n using (symbol, ts)
    where (o.open, o.high, o.low, o.close, o.volume) is distinct from (n.open, n.high, n.low, n.close, n.volume)
      -- What another source only adds is no correction.
      or (o.vwap is not null and o.vwap is distinct from n.vwap) or (o.trades is not null and o.trades is distinct from n.trades)
    order by o.symbol, o.ts;
    -- A bar that moved (symbol or ts changed) leaves one half hour and enters another.
    insert into tickstock.dirty (symbol, granule, since)
    select symbol, public.candle_start('30min', ts), min(ts)
    from (select symbol, ts from new_bars
          union all
          select symbol, ts from old_bars where ts >= tickstock.bars_since()) b
    group by 1, 2;
  end if;
  -- Off for bulk loads of history, and for databases nobody scans: alter database … set tickstock.scan_queue = off
  if found and scan then
    insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
    select b.shard, '1min', '-infinity', case when b.bars <= 10000 then b.symbols else b.symbols[nth + 1 : nth + 10000] end,
      case when b.bars <= 10000 then b.starts else b.starts[nth + 1 : nth + 10000] end
    from (select tickstock.shard_of(symbol) as shard, array_agg(symbol) as symbols, array_agg(ts) as starts, count(*)::integer as bars
          from new_bars group by 1) b
    cross join lateral generate_series(0, b.bars - 1, 10000) nth;
    if tg_op = 'UPDATE' then
      insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
      select tickstock.shard_of(o.symbol), '1min', '-infinity', array_agg(o.symbol), array_agg(o.ts)
      from old_bars o where not exists (select from new_bars n where n.symbol = o.symbol and n.ts = o.ts)
      group by 1;
    end if;
    perform pg_notify('tickstock_bars', '');
  elsif found then
    perform tickstock.note_unqueued_change();
  end if;
  return null;
end $$;
comment on function tickstock.after_write() is
  'Trigger of ohlcv_1min, per statement: marks half hours dirty, queues bars for scanning. new_bars and old_bars: the rows written, as they are and as they were.';

create or replace function tickstock.after_delete() returns trigger
language plpgsql
as $$
begin
  if old.ts < tickstock.bars_since() then
    return null;  -- it is being dropped; its candles stay
  end if;
  insert into tickstock.dirty (symbol, granule, since)
  values (old.symbol, public.candle_start('30min', old.ts), old.ts);
  if current_setting('tickstock.scan_queue', true) is distinct from 'off' then
    -- Events that it made are to be taken back.
    insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
    values (tickstock.shard_of(old.symbol), '1min', '-infinity', array[old.symbol], array[old.ts]);
    perform pg_notify('tickstock_bars', '');
  elsif current_setting('tickstock.noted_in', true) is distinct from pg_current_xact_id()::text then
    -- Once is enough: this trigger fires for each row.
    perform tickstock.note_unqueued_change();
    perform set_config('tickstock.noted_in', pg_current_xact_id()::text, true);
  end if;
  return null;
end $$;
comment on function tickstock.after_delete() is 'Trigger of ohlcv_1min, per row: TimescaleDB refuses transition tables for DELETE once the columnstore is on.';

create or replace function tickstock.before_truncate() returns trigger
language plpgsql
as $$
begin
  perform tickstock.refuse_isolation('truncate ohlcv_1min', 'transaction_isolation');
  insert into tickstock.dirty (symbol, granule, since)
  select symbol, public.candle_start('30min', ts), min(ts) from public.ohlcv_1min
  where ts >= tickstock.bars_since()  -- what is being dropped leaves its candles behind
  group by 1, 2;
  perform tickstock.note_unqueued_change();
  return null;
end $$;
comment on function tickstock.before_truncate() is 'Trigger of ohlcv_1min: every half hour that is about to lose its bars becomes dirty.';

create or replace function tickstock.before_truncate_of_queue() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform tickstock.note_unqueued_change();
  return null;
end $$;
comment on function tickstock.before_truncate_of_queue() is 'Trigger of tickstock.scan_queue: of the changes that wait there scanners do not learn any more.';

create or replace trigger before_truncate before truncate on tickstock.scan_queue
  for each statement execute function tickstock.before_truncate_of_queue();
create or replace trigger after_insert after insert on ohlcv_1min
  referencing new table as new_bars for each statement execute function tickstock.after_write();
create or replace trigger after_update after update on ohlcv_1min
  referencing new table as new_bars old table as old_bars for each statement execute function tickstock.after_write();
create or replace trigger after_delete after delete on ohlcv_1min
  for each row execute function tickstock.after_delete();
create or replace trigger before_truncate before truncate on ohlcv_1min
  for each statement execute function tickstock.before_truncate();

-- What it makes holds days as text, which is read in whatever style a session has: 03.07. is not always in July.
alter function tickstock.rebuild_session_of() set datestyle = 'ISO';

create or replace function tickstock.after_calendar_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  changed date[];
  first_day date;
begin
  perform tickstock.refuse_isolation('a change of trading_days', 'transaction_isolation');
  if tg_op = 'INSERT' then
    changed := array(select day from new_days);
  elsif tg_op = 'DELETE' then
    changed := array(select day from old_days);
  else
    changed := array(select day from old_days union select day from new_days);
  end if;
  -- Who is writing bars does so by the old calendar: wait for them, then do the day's bars again. That
  -- renews their session, marks their half hours, so candles of the day, week and month follow, and queues
  -- them for the scanners, since patterns look at sessions.
  lock table public.ohlcv_1min in share row exclusive mode;
  -- Now that nobody is dropping bars either.
  first_day := (tickstock.bars_since() at time zone 'America/New_York')::date;
  if exists (select from unnest(changed) day where day <= first_day) then
    raise exception 'bars before % have been dropped, and their candles are final: the calendar can''t change there',
      tickstock.bars_since();
  end if;
  perform tickstock.rebuild_session_of();
  for i in 1 .. coalesce(cardinality(changed), 0) loop
    update public.ohlcv_1min set volume = volume
    where ts >= changed[i]::timestamp at time zone 'America/New_York'
      and ts < (changed[i] + 1)::timestamp at time zone 'America/New_York';
    -- A day that has lost its session, or a symbol's only bars in it, has no part left that would bring it along.
    if current_setting('tickstock.scan_queue', true) is distinct from 'off' then
      insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
      select tickstock.shard_of(b.symbol), 'daily', c.complete_at, array_agg(b.symbol), array_agg(c.starts)
      from (select d as starts, public.candle_complete_at('daily', d) as complete_at
            from (select changed[i]::timestamp at time zone 'America/New_York' as d) m) c
      cross join lateral (
        select distinct o.symbol from public.ohlcv_1min o
        where o.ts >= c.starts and o.ts < public.candle_end('daily', c.starts)) b
      group by 1, c.complete_at;
    end if;
  end loop;
  return null;
end $$;
comment on function tickstock.after_calendar_change() is
  'Trigger of trading_days, per statement: sessions and candles of the days that changed are made anew. old_days and new_days: the rows, as they were and as they are.';

create or replace function tickstock.before_calendar_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  opens timestamp := new.opens_at at time zone 'America/New_York';
  closes timestamp := new.closes_at at time zone 'America/New_York';
begin
  -- As the constraints of the table, which say no more than their names.
  if opens >= closes or opens::date <> new.day or closes::date <> new.day
    or date_bin('30 minutes', opens, '2000-01-03') <> opens or date_bin('30 minutes', closes, '2000-01-03') <> closes then
    raise exception 'a regular session of % from % to % in New York? It begins and ends on half hours of that day, and ends after it has begun',
      new.day, opens, closes using errcode = 'check_violation',
        hint = 'Of a time in New York make a moment with: (day + time ''09:30'') at time zone ''America/New_York''.';
  end if;
  return new;
end $$;
comment on function tickstock.before_calendar_change() is
  'Trigger of trading_days, per row: a session that can''t be is refused in words.';

create or replace function tickstock.before_calendar_truncate() returns trigger
language plpgsql
as $$
begin
  raise exception 'trading_days can''t be truncated: nothing would tell which days'' sessions and candles to make anew'
    using errcode = 'feature_not_supported', hint = 'delete from trading_days does so, day by day.';
end $$;
comment on function tickstock.before_calendar_truncate() is
  'Trigger of trading_days: truncate is refused, since it tells no rows and the candles would not follow.';

-- Once per row, up to version 0.1.
drop trigger if exists after_calendar_change on trading_days;
create or replace trigger after_calendar_insert after insert on trading_days
  referencing new table as new_days for each statement execute function tickstock.after_calendar_change();
create or replace trigger after_calendar_update after update on trading_days
  referencing new table as new_days old table as old_days for each statement execute function tickstock.after_calendar_change();
create or replace trigger after_calendar_delete after delete on trading_days
  referencing old table as old_days for each statement execute function tickstock.after_calendar_change();
create or replace trigger before_calendar_change before insert or update on trading_days
  for each row execute function tickstock.before_calendar_change();
create or replace trigger before_calendar_truncate before truncate on trading_days
  for each statement execute function tickstock.before_calendar_truncate();
