-- What a change of a bar sets off: its half hour becomes dirty, the bar is queued for the scanners,
-- and listeners are woken. Every write path goes through here: COPY, INSERT, MERGE, UPDATE, DELETE.

create or replace function tickstock.after_write() returns trigger
language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into tickstock.dirty (symbol, granule)
    select distinct symbol, public.candle_start('30min', ts) from new_bars;
  else
    -- A bar that moved (symbol or ts changed) leaves one half hour and enters another.
    insert into tickstock.dirty (symbol, granule)
    select symbol, public.candle_start('30min', ts) from new_bars
    union
    select symbol, public.candle_start('30min', ts) from old_bars;
  end if;
  -- Off for bulk loads of history, and for databases nobody scans: alter database … set tickstock.scan_queue = off
  if found and current_setting('tickstock.scan_queue', true) is distinct from 'off' then
    insert into tickstock.scan_queue (timeframe, symbol, ts, ready_at)
    select '1min', symbol, ts, '-infinity' from new_bars;
    perform pg_notify('tickstock_bars', '');
  end if;
  return null;
end $$;
comment on function tickstock.after_write() is
  'Trigger of ohlcv_1min, per statement: marks half hours dirty, queues bars for scanning. new_bars and old_bars: the rows written, as they are and as they were.';

create or replace function tickstock.after_delete() returns trigger
language plpgsql
as $$
begin
  insert into tickstock.dirty (symbol, granule)
  values (old.symbol, public.candle_start('30min', old.ts));
  return null;
end $$;
comment on function tickstock.after_delete() is 'Trigger of ohlcv_1min, per row: TimescaleDB refuses transition tables for DELETE once the columnstore is on.';

create or replace function tickstock.before_truncate() returns trigger
language plpgsql
as $$
begin
  insert into tickstock.dirty (symbol, granule)
  select distinct symbol, public.candle_start('30min', ts) from public.ohlcv_1min;
  return null;
end $$;
comment on function tickstock.before_truncate() is 'Trigger of ohlcv_1min: every half hour that is about to lose its bars becomes dirty.';

create or replace trigger after_insert after insert on ohlcv_1min
  referencing new table as new_bars for each statement execute function tickstock.after_write();
create or replace trigger after_update after update on ohlcv_1min
  referencing new table as new_bars old table as old_bars for each statement execute function tickstock.after_write();
create or replace trigger after_delete after delete on ohlcv_1min
  for each row execute function tickstock.after_delete();
create or replace trigger before_truncate before truncate on ohlcv_1min
  for each statement execute function tickstock.before_truncate();

create or replace function tickstock.after_calendar_change() returns trigger
language plpgsql
as $$
declare
  changed date := coalesce(new.day, old.day);
begin
  if tg_op = 'UPDATE' and old.day <> new.day then
    raise exception 'trading_days.day can''t be changed from % to %: delete the one, insert the other', old.day, new.day;
  end if;
  -- One dirty half hour of a symbol is enough to have its whole day, week and month made anew.
  insert into tickstock.dirty (symbol, granule)
  select symbol, min(public.candle_start('30min', ts)) from public.ohlcv_1min
  where ts >= changed::timestamp at time zone 'America/New_York'
    and ts < (changed + 1)::timestamp at time zone 'America/New_York'
  group by symbol;
  return null;
end $$;
comment on function tickstock.after_calendar_change() is 'Trigger of trading_days: the candles of a day whose session changed are made anew.';

create or replace trigger after_calendar_change after insert or update or delete on trading_days
  for each row execute function tickstock.after_calendar_change();
