-- What every engine's refresher does besides refreshing.

create or replace function tickstock.thin_marks() returns void
language sql
begin atomic
  -- The newest mark of a half hour is enough, and must stay: a refresh deletes only marks it has seen.
  -- By ctid, as everywhere on queues: their size jumps, and no plan may depend on an old guess of it.
  delete from tickstock.dirty where ctid = any (array(
    select ctid from (select ctid, row_number() over (partition by symbol, granule order by id desc) as nth from tickstock.dirty) m
    where nth > 1));
end;
comment on function tickstock.thin_marks() is
  'Drops repeated marks of one half hour, so that a forming one does not gather a mark for every minute. Only under the refresher''s lock.';

create or replace function tickstock.move_recent() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
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
