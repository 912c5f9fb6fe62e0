-- What every engine's refresher does besides refreshing.

-- With the owner's rights, as what else refreshes: a writer may refresh, and has no other way to marks and candles.
create or replace function tickstock.thin_marks() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  before text := current_setting('lock_timeout');
begin
  -- One mark of a half hour is enough: the one that tells the most. None that is seen here is one that the
  -- refresh after it would not see.
  -- By ctid, as everywhere on queues: their size jumps, and no plan may depend on an old guess of it.
  delete from tickstock.dirty where ctid = any (array(
    select ctid from (select ctid, row_number() over (partition by symbol, granule order by since, id) as nth from tickstock.dirty) m
    where nth > 1));
  -- A large load leaves a long, nearly empty file, which queries read to its end. No vacuum mends it
  -- while a mark stays at the end. Nobody is kept waiting: it is tried again with the next refresh.
  -- A mark takes some 60 bytes.
  if pg_relation_size('tickstock.dirty') > 8 * 1024 * 1024
    and pg_relation_size('tickstock.dirty') > 600 * (select count(*) from (select from tickstock.dirty limit 100000) d) then
    begin
      perform set_config('lock_timeout', '50ms', true);
      cluster tickstock.dirty using dirty_pkey;
    exception when lock_not_available or insufficient_privilege then
      null;
    end;
    perform set_config('lock_timeout', before, true);
  end if;
end $$;
comment on function tickstock.thin_marks() is
  'Drops repeated marks of one half hour, all but one from the earliest minute, so that a forming one does not gather a mark for every minute. Only under the refresher''s lock.';

create or replace function tickstock.move_recent() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
-- In other styles a time is written with a short zone name, which may be read as another zone: CST, IST.
set datestyle = 'ISO'
as $$
declare
  latest timestamptz := public.latest_minute();
begin
  -- One to two weeks back, so that it moves once a week: each time, every session plans its queries anew.
  if tickstock.recent_since() between latest - interval '14 days' and latest - interval '7 days' then
    return;
  end if;
  execute format('create or replace function tickstock.recent_since() returns timestamptz
                  language sql stable parallel safe return %L::timestamptz',
                 coalesce(public.candle_start('30min', latest - interval '7 days'), '-infinity'));
end $$;
comment on function tickstock.move_recent() is 'Moves tickstock.recent_since() along with the feed''s clock. Only under the refresher''s lock.';
