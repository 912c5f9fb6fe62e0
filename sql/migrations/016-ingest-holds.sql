-- The operator sees what waits in ingest, and how long it waited. Written with the bars, in a row that they
-- change anyway; null by an ingest that does not tell yet.
alter table feed_stretches
  add column frames_waiting integer,
  add column spilled_bytes bigint,
  add column stored_after interval;
comment on column feed_stretches.frames_waiting is 'Frames that ingest had received and not stored when it last stored bars; null: not told.';
comment on column feed_stretches.spilled_bytes is 'Bytes of its spill file that were not stored then.';
comment on column feed_stretches.stored_after is 'How long after its receipt the oldest of what it stored then was stored, without the commit.';

-- It gets three arguments more, and is made anew with the objects.
drop function if exists tickstock.extend_stretch(bigint, timestamptz, timestamptz, bigint);
