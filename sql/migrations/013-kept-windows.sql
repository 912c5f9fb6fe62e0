-- Scanners keep the windows of candles that they have read, and must learn of every change of bars: of
-- those that come by the scan queue as they take them, of others' takings and of changes past the queue here.
alter table tickstock.scan_shards add column taken bigint not null default 0;
comment on column tickstock.scan_shards.taken is
  'How often candles of the share have been taken from the queue: who finds one more than it left has missed nothing.';

create table tickstock.unqueued_changes (
  id bigint generated always as identity primary key
);
comment on table tickstock.unqueued_changes is
  'A row for each statement that has changed bars past the scan queue. Their number and the last of them tell whether there was one since.';
comment on column tickstock.unqueued_changes.id is 'Increasing, not in the order of commits.';
