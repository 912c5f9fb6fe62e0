-- How long bars are kept, and how. Off or cautious by default: an analyst may change the row.
create table storage_policy (
  only_row boolean primary key default true check (only_row),
  keep_bars interval check (keep_bars >= interval '14 days'),
  columnstore_after interval default '14 days' check (columnstore_after >= interval '1 day')
);
comment on table storage_policy is
  'One row: what call ohlcv_keep_house() does with old bars. Ages are counted from the feed''s clock. Change it with update storage_policy set keep_bars = ''2 years''.';
comment on column storage_policy.only_row is 'Keeps the table at one row.';
comment on column storage_policy.keep_bars is
  'Minute bars older than this are dropped, in whole weeks; candles made of them stay for good. Null: bars are kept for ever.';
comment on column storage_policy.columnstore_after is
  'Bars and candles older than this move into the columnstore, where they take a tenth of the space and can still be corrected. Null: never. Of no effect on engines without columnstore.';
insert into storage_policy default values;
