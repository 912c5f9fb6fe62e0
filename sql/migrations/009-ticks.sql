-- Trades, where they are asked for (tickstock ingest --channel T --store-ticks).

create table ticks (
  symbol text not null,
  ts timestamptz not null,
  sequence bigint not null,
  price numeric not null,
  size numeric not null,
  conditions smallint[] not null default '{}',
  exchange smallint,
  trade_id text,
  tape smallint,
  trf smallint,
  trf_ts timestamptz,
  -- A trade that comes again is the same row.
  constraint ticks_pkey primary key (symbol, ts, sequence),
  constraint ticks_price check (price > 0 and price < 'Infinity'),
  constraint ticks_size check (size >= 0 and size < 'Infinity')
);
comment on table ticks is
  'Trades as the feed sent them, each once. Only what came live: nothing fills gaps in it. Minute bars are made of them by the vendor''s rule of conditions.';
comment on column ticks.symbol is 'Ticker, as the exchange writes it.';
comment on column ticks.ts is 'When the SIP had it, UTC: the time that sorts it into a minute.';
comment on column ticks.sequence is 'Increases through a symbol''s day, with holes; orders trades of one millisecond.';
comment on column ticks.price is 'In the listing''s currency, unadjusted.';
comment on column ticks.size is 'Shares; may be fractional. 0 in reports that are no trade, such as an official close.';
comment on column ticks.conditions is 'The vendor''s condition codes: they decide what of a bar the trade may change.';
comment on column ticks.exchange is 'The vendor''s number of the exchange.';
comment on column ticks.trade_id is 'The exchange''s name of the trade.';
comment on column ticks.tape is '1 NYSE, 2 NYSE Arca and American, 3 Nasdaq.';
comment on column ticks.trf is 'The trade reporting facility, for trades off the exchanges.';
comment on column ticks.trf_ts is 'When the facility had it, UTC.';

create table tickstock.doubts (
  symbol text not null,
  ts timestamptz not null,
  noted_at timestamptz not null default clock_timestamp(),
  primary key (symbol, ts)
);
comment on table tickstock.doubts is
  'Minutes that something came for too late to count, when their bars are made of seconds or trades. They are owed until another source has told them.';
comment on column tickstock.doubts.symbol is 'Ticker.';
comment on column tickstock.doubts.ts is 'Start of the minute, UTC.';
comment on column tickstock.doubts.noted_at is 'When, by the database''s clock.';
