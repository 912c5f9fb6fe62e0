-- Patterns that can be set, events that can be taken back, and a queue of batches: a burst of ten
-- thousand bars was ten thousand entries in three indexes, and is a few rows now.

create table tickstock.scan_shards (
  shard integer primary key
);
comment on table tickstock.scan_shards is
  'Shares of the symbols. Who scans a share holds its row locked, so that two scanners never judge candles of one symbol at the same time.';
comment on column tickstock.scan_shards.shard is 'Number of the share, see tickstock.shard_of().';
insert into tickstock.scan_shards select generate_series(0, 31);

alter table tickstock.scan_queue rename to scan_queue_of_candles;
alter index tickstock.scan_queue_pkey rename to scan_queue_of_candles_pkey;
create table tickstock.scan_queue (
  id bigint generated always as identity,
  shard integer not null references tickstock.scan_shards,
  timeframe text not null,
  ready_at timestamptz not null,
  symbols text[] not null,
  starts timestamptz[] not null check (cardinality(starts) = cardinality(symbols)),
  constraint scan_queue_pkey primary key (shard, ready_at, id)
);
alter table tickstock.scan_queue set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
                                      autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000);
comment on table tickstock.scan_queue is
  'Candles that wait to be scanned for patterns, in batches. Fresh bars enter as 1min candles; a scanned candle enters the candle of the next timeframe.';
comment on column tickstock.scan_queue.id is 'Order of arrival.';
comment on column tickstock.scan_queue.shard is 'The share of the symbols, of which these are some.';
comment on column tickstock.scan_queue.timeframe is 'Timeframe of the candles.';
comment on column tickstock.scan_queue.ready_at is 'The feed time from which the candles are known to be complete; -infinity where they are already.';
comment on column tickstock.scan_queue.symbols is 'Their symbols.';
comment on column tickstock.scan_queue.starts is 'Their starts, UTC, in the order of symbols.';
insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)
select hashtext(symbol) & 31, timeframe, ready_at, array_agg(symbol order by id), array_agg(ts order by id)
from tickstock.scan_queue_of_candles group by 1, 2, 3 order by min(id);
drop function if exists tickstock.take_candles(integer);
-- And what reads it: sql/objects make it again.
drop table tickstock.scan_queue_of_candles cascade;

create table patterns (
  pattern text primary key,
  enabled boolean not null default true,
  timeframes text[],
  parameters jsonb not null default '{}' check (jsonb_typeof(parameters) = 'object'),
  kind text not null,
  summary text not null,
  source text not null default '',
  default_timeframes text[] not null,
  default_parameters jsonb not null,
  candles integer not null
);
comment on table patterns is
  'The patterns that scanners know, and how they are set. Edit enabled, timeframes and parameters: it takes effect with the next candle. Example: update patterns set parameters = ''{"max_body": 0.05}'' where pattern = ''Doji''.';
comment on column patterns.pattern is 'Name, as in events.';
comment on column patterns.enabled is 'False: not looked for. Events it made before stay.';
comment on column patterns.timeframes is 'Where to look for it; null: in default_timeframes.';
comment on column patterns.parameters is 'What differs from default_parameters, such as {"max_body": 0.05}.';
comment on column patterns.kind is 'What it is made of: python, sql or talib.';
comment on column patterns.summary is 'What it is, in a line.';
comment on column patterns.source is 'Where its definition comes from.';
comment on column patterns.default_timeframes is 'Timeframes for which it was made.';
comment on column patterns.default_parameters is 'Its parameters and their defaults.';
comment on column patterns.candles is 'How many candles it looks at, the judged one included, as it was last set.';

create sequence events_change_seq;
alter table events
  add column change bigint,
  add column strength double precision not null default 1 check (strength >= 0 and strength <= 1),
  add column parameters jsonb not null default '{}',
  add column candles_from timestamptz,
  add column lag interval,
  add column late boolean not null default false,
  add column retracted_at timestamptz;
update events set change = id;
select setval('events_change_seq', max(id)) from events having max(id) is not null;
alter table events alter column change set default nextval('events_change_seq');
alter table events alter column change set not null;
alter sequence events_change_seq owned by events.change;
create unique index events_change_idx on events (change);
drop index events_unpublished_idx;
create index events_unpublished_idx on events (change) where published_at is null;
comment on sequence events_change_seq is 'Numbers of events.change.';
comment on table events is
  'Patterns found in completed candles, each once per pattern, symbol, timeframe and candle. One that a correction has undone stays, with retracted_at.';
comment on column events.id is 'Event id, increasing.';
comment on column events.change is 'Increases with each change of any event: made, corrected, taken back. Consumers resume from it.';
comment on column events.strength is 'How clear it is, from 0 to 1, as the pattern defines it.';
comment on column events.parameters is 'The parameters of the pattern that made it.';
comment on column events.candles_from is 'Start of the oldest candle that the pattern looked at, UTC.';
comment on column events.lag is 'From the completion of its candle to its recording, by the feed''s clock.';
comment on column events.late is 'Recorded when the feed had passed the whole next candle already: a late or corrected bar made it, or the scanner was behind.';
comment on column events.retracted_at is 'When a correction of its bars undid it, by the database''s clock; null for an event that stands.';
comment on column events.published_at is 'When Redis got its last change; null while that waits for Redis.';

create table consumers (
  consumer text primary key,
  heard bigint not null,
  heard_at timestamptz not null default clock_timestamp()
);
comment on table consumers is 'Up to which change of an event each named consumer has heard: see tickstock listen --consumer.';
comment on column consumers.consumer is 'Its name.';
comment on column consumers.heard is 'The last events.change that it has taken.';
comment on column consumers.heard_at is 'When, by the database''s clock.';
