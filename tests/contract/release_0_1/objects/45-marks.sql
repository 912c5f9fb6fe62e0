-- Marks of change (tickstock.dirty) that repeat each other.

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
