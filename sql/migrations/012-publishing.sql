-- What Redis has got is told by one number, not by a mark on each event: changes of events become visible
-- in the order of their numbers, and Redis gets them in that order.
create table tickstock.publishing (
  since bigint not null,
  up_to bigint not null,
  at timestamptz not null default clock_timestamp()
);
create unique index publishing_one_idx on tickstock.publishing ((true));
insert into tickstock.publishing (since, up_to)
select 0, coalesce(min(change) filter (where published_at is null) - 1, max(change)) from events having count(*) > 0;
comment on table tickstock.publishing is
  'How far Redis has been told of events; a single row, none before the first scanner with a Redis.';
comment on column tickstock.publishing.since is 'The last events.change before the first scanner with a Redis: from there on changes are for it.';
comment on column tickstock.publishing.up_to is 'The last events.change that Redis has got.';
comment on column tickstock.publishing.at is 'When it got it, by the database''s clock.';

-- A view of a development version counts by the column that goes; the objects define it anew.
do $$
begin
  if to_regclass('tickstock.freshness') is not null then
    execute 'create or replace view tickstock.freshness as '
      || replace(pg_get_viewdef('tickstock.freshness'::regclass), 'events.published_at IS NULL', 'false');
  end if;
end $$;

drop index events_unpublished_idx;
alter table events drop column published_at;

-- Thousands of events a second: as few indexes as answer the questions, and no look at another table.
alter table events drop constraint events_timeframe_fkey;
alter table events add constraint events_timeframe_check check
  (timeframe in ('1min', '5min', '15min', '30min', '1hour', '4hour', 'daily', 'weekly', 'monthly'));
alter table events drop constraint events_once;
alter table events add constraint events_once unique (symbol, ts, timeframe, pattern);
drop index events_symbol_ts_idx;
