-- The tables of the contract. Everything larger than a minute is derived from ohlcv_1min; see
-- sql/objects/40-candles.sql for how.

create table timeframes (
  timeframe text primary key,
  position smallint not null unique,
  width interval not null,
  sessions text not null check (sessions in ('all', 'regular')),
  made_from text references timeframes
);
comment on table timeframes is 'The timeframes. The candles of each are in the relation ohlcv_<timeframe>.';
comment on column timeframes.timeframe is 'Name, as in ohlcv_<timeframe>.';
comment on column timeframes.position is 'Order, from the shortest to the longest.';
comment on column timeframes.width is 'Length of a candle. From 4hour up it is counted in New York local time.';
comment on column timeframes.sessions is 'all: made of all bars, pre-market and after-hours too. regular: made of the regular session only.';
comment on column timeframes.made_from is 'The shorter timeframe whose completed candles complete this one.';
insert into timeframes values
  ('1min',    1, '1 minute',   'all',     null),
  ('5min',    2, '5 minutes',  'all',     '1min'),
  ('15min',   3, '15 minutes', 'all',     '5min'),
  ('30min',   4, '30 minutes', 'all',     '15min'),
  ('1hour',   5, '1 hour',     'all',     '30min'),
  ('4hour',   6, '4 hours',    'all',     '1hour'),
  -- Not of 4hour: a session ends on a half hour, on half days in the middle of a 4hour candle.
  ('daily',   7, '1 day',      'regular', '30min'),
  ('weekly',  8, '7 days',     'regular', 'daily'),
  ('monthly', 9, '1 month',    'regular', 'daily');

create table trading_days (
  day date primary key,
  opens_at timestamptz not null,
  closes_at timestamptz not null,
  check (opens_at < closes_at),
  -- Candles of the regular session are summed up from half hours: a session must consist of whole ones.
  check (date_bin('30 minutes', opens_at, timestamptz '2000-01-03 00:00+00') = opens_at),
  check (date_bin('30 minutes', closes_at, timestamptz '2000-01-03 00:00+00') = closes_at),
  check ((opens_at at time zone 'America/New_York')::date = day),
  check ((closes_at at time zone 'America/New_York')::date = day)
);
comment on table trading_days is
  'The regular sessions of the New York exchanges, 1990 to 2040; a holiday has no row. Correct a row, and the daily, weekly and monthly candles of that day follow.';
comment on column trading_days.day is 'The date in New York.';
comment on column trading_days.opens_at is 'Opening of the regular session (09:30 New York), UTC. Its first minute bar begins here.';
comment on column trading_days.closes_at is 'Close of the regular session (16:00 New York; 13:00 or 14:00 on half days), UTC. Bars from here on are after-hours.';

create table ohlcv_1min (
  symbol text not null,
  ts timestamptz not null,
  open numeric not null,
  high numeric not null,
  low numeric not null,
  close numeric not null,
  volume numeric not null,
  vwap numeric,
  trades bigint,
  bars integer generated always as (1) stored,
  constraint ohlcv_1min_pkey primary key (symbol, ts),
  constraint ohlcv_1min_on_the_minute check (date_bin('1 minute', ts, timestamptz '2000-01-03 00:00+00') = ts),
  -- NaN sorts above Infinity, so "< Infinity" refuses both.
  constraint ohlcv_1min_prices check (low >= 0 and low <= open and low <= close and high >= open and high >= close and high < 'Infinity'),
  constraint ohlcv_1min_volume check (volume >= 0 and volume < 'Infinity'),
  constraint ohlcv_1min_vwap check (vwap >= 0 and vwap < 'Infinity'),
  constraint ohlcv_1min_trades check (trades >= 0)
);
-- Cross-sections (all symbols at one time) and the feed's clock, on engines without chunks too.
create index ohlcv_1min_ts_idx on ohlcv_1min (ts desc);
comment on table ohlcv_1min is
  'Minute bars as the feed sent them, unadjusted: pre-market, regular session and after-hours. No trade in a minute: no row. All larger candles follow every change of this table at once.';
comment on column ohlcv_1min.symbol is 'Ticker, as the exchange writes it.';
comment on column ohlcv_1min.ts is 'Start of the minute, UTC.';
comment on column ohlcv_1min.open is 'First price of the minute.';
comment on column ohlcv_1min.high is 'Highest price of the minute.';
comment on column ohlcv_1min.low is 'Lowest price of the minute.';
comment on column ohlcv_1min.close is 'Last price of the minute.';
comment on column ohlcv_1min.volume is 'Shares traded; may be fractional.';
comment on column ohlcv_1min.vwap is 'Volume-weighted average price; null where the source does not tell it (flat files).';
comment on column ohlcv_1min.trades is 'Number of trades; null where the source does not tell it (the live feed).';
comment on column ohlcv_1min.bars is 'Always 1: the number of minute bars in this candle, as in the larger timeframes.';

create table tickstock.dirty (
  id bigint generated always as identity primary key,
  symbol text not null,
  granule timestamptz not null
);
create index dirty_symbol_granule_idx on tickstock.dirty (symbol, granule);
comment on table tickstock.dirty is
  'Half hours of a symbol whose bars have changed since their candles were materialized. Views compute these candles from the bars; ohlcv_refresh() empties it. Append-only for writers: two writers of one half hour leave two rows, so that neither depends on the other''s commit.';
comment on column tickstock.dirty.id is 'Which marks a refresh has seen: it deletes exactly those.';
comment on column tickstock.dirty.symbol is 'Ticker.';
comment on column tickstock.dirty.granule is 'Start of the half hour, UTC.';

create table tickstock.scan_queue (
  id bigint generated always as identity primary key,
  timeframe text not null,
  symbol text not null,
  ts timestamptz not null,
  ready_at timestamptz not null
);
create index scan_queue_ready_at_idx on tickstock.scan_queue (ready_at, id);
-- The entries of one candle: it has one for each of its parts, and a scanner takes all of them at once.
create index scan_queue_candle_idx on tickstock.scan_queue (symbol, timeframe, ts);
comment on table tickstock.scan_queue is
  'Candles that wait to be scanned for patterns. A fresh bar enters as a 1min candle; a scanned candle enters the candle of the next timeframe.';
comment on column tickstock.scan_queue.id is 'Order of arrival.';
comment on column tickstock.scan_queue.timeframe is 'Timeframe of the candle.';
comment on column tickstock.scan_queue.symbol is 'Ticker.';
comment on column tickstock.scan_queue.ts is 'Start of the candle, UTC.';
comment on column tickstock.scan_queue.ready_at is 'The feed time from which the candle is known to be complete; -infinity where it is already.';

create table events (
  id bigint generated always as identity primary key,
  pattern text not null,
  symbol text not null,
  timeframe text not null references timeframes,
  ts timestamptz not null,
  direction text not null check (direction in ('long', 'short', 'neutral')),
  price numeric not null,
  details jsonb not null default '{}',
  detected_at timestamptz not null default clock_timestamp(),
  published_at timestamptz,
  constraint events_once unique (pattern, symbol, timeframe, ts)
);
create index events_symbol_ts_idx on events (symbol, ts desc);
create index events_ts_idx on events (ts desc);
create index events_unpublished_idx on events (id) where published_at is null;
comment on table events is 'Patterns found in completed candles, each once per pattern, symbol, timeframe and candle.';
comment on column events.id is 'Event id, increasing; consumers can resume from it.';
comment on column events.pattern is 'Name of the pattern, such as Doji.';
comment on column events.symbol is 'Ticker.';
comment on column events.timeframe is 'Timeframe of the candle; ohlcv_<timeframe> holds it.';
comment on column events.ts is 'Start of the candle that completed the pattern, UTC.';
comment on column events.direction is 'What the pattern suggests: long, short or neutral.';
comment on column events.price is 'Close of that candle.';
comment on column events.details is 'The numbers that made the pattern.';
comment on column events.detected_at is 'When it was recorded, by the database''s clock.';
comment on column events.published_at is 'When Redis got it; null while it waits for Redis.';

create table refused_bars (
  id bigint generated always as identity primary key,
  refused_at timestamptz not null default clock_timestamp(),
  source text not null,
  reason text not null,
  payload text not null
);
create index refused_bars_refused_at_idx on refused_bars (refused_at desc);
comment on table refused_bars is 'What came in and could not become a bar, with the reason. Nothing is dropped in silence.';
comment on column refused_bars.id is 'Order of refusal.';
comment on column refused_bars.refused_at is 'When, by the database''s clock.';
comment on column refused_bars.source is 'Where it came from: feed, or the name of a file.';
comment on column refused_bars.reason is 'What is wrong with it.';
comment on column refused_bars.payload is 'The input itself, shortened to 2,000 characters.';
