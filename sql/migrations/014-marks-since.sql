-- Most bars of an ended half hour came minute by minute, and the candles of its first minutes could have been
-- made long before: for that a mark tells from which minute on.
-- The default is for a writer that is under way with the older trigger.
alter table tickstock.dirty add column since timestamptz not null default '-infinity';
comment on column tickstock.dirty.since is
  'The earliest minute that may have changed, UTC: materialized 5min and 15min candles of the half hour that end before it are exact, unless another mark tells of an earlier one. Only refreshers look at it: to views the whole half hour is stale. -infinity where nobody knows.';
