-- The ledger of the feed: what was covered live, and what was asked for afterwards. What is owed is
-- not written down anywhere: it follows from these two, so it can't be forgotten.

create table feed_stretches (
  id bigint generated always as identity primary key,
  feed text not null,
  channel text not null,
  symbols text[],
  opened_at timestamptz not null default clock_timestamp(),
  starts timestamptz,
  latest timestamptz,
  bars bigint not null default 0,
  closed_at timestamptz,
  reason text,
  intended boolean not null default false
);
comment on table feed_stretches is
  'Stretches of a live subscription without a break: from a connection, or a change of its symbols, to the next. Written with the bars, in the same transaction.';
comment on column feed_stretches.id is 'In the order of opening.';
comment on column feed_stretches.feed is 'Address of the feed, without secrets.';
comment on column feed_stretches.channel is 'AM (minutes), A (seconds) or T (trades).';
comment on column feed_stretches.symbols is 'The symbols subscribed; null: all.';
comment on column feed_stretches.opened_at is 'When the subscription was sent, by the clock on the wall.';
comment on column feed_stretches.starts is 'Start of the first minute of which a bar came, UTC; null while there is none.';
comment on column feed_stretches.latest is 'Start of the latest minute of which a bar is stored, UTC.';
comment on column feed_stretches.bars is 'Bars that came, repeated and refused ones too.';
comment on column feed_stretches.closed_at is 'When it ended, by the clock on the wall; null while it goes on, and when ingest was killed.';
comment on column feed_stretches.reason is 'Why it ended.';
comment on column feed_stretches.intended is 'Whether it was meant to end: ingest was stopped, or its symbols changed.';

alter table empty_minutes rename to backfills;
alter table backfills drop constraint empty_minutes_pkey;
alter table backfills rename constraint empty_minutes_check to backfills_check;
alter table backfills add constraint backfills_pkey primary key (symbol, starts, ends);
alter table backfills rename column confirmed_at to asked_at;
alter table backfills add column settled boolean not null default true;
alter table backfills add column bars bigint not null default 0;
comment on table backfills is
  'Stretches that another source than the live feed has told in full. Their minutes without a bar are confirmed empty: the symbol did not trade.';
comment on column backfills.symbol is 'Ticker; * stands for all symbols.';
comment on column backfills.source is 'Who told: rest, or the name of a file.';
comment on column backfills.asked_at is 'When, by the database''s clock.';
comment on column backfills.settled is 'False: bars could still change when it was asked, so it will be asked again.';
comment on column backfills.bars is 'Bars that the source had.';

create table minutes_complete (
  ts timestamptz not null,
  stretch bigint not null references feed_stretches,
  bars integer not null,
  completed_at timestamptz not null default clock_timestamp(),
  primary key (ts, stretch)
);
comment on table minutes_complete is
  'Minutes that the feed''s clock has passed: all their bars have come, but for late ones. Notified on tickstock_minutes, by Redis too.';
comment on column minutes_complete.ts is 'Start of the minute, UTC.';
comment on column minutes_complete.stretch is 'The subscription it came by, in feed_stretches.';
comment on column minutes_complete.bars is 'Symbols that have a bar in it.';
comment on column minutes_complete.completed_at is 'When its last bars were stored and a later one was known, by the database''s clock.';
