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
  'Bars and candles older than this move into the columnstore, where they take an eighth of the space and can still be corrected. Null: never. Of no effect on engines without columnstore.';
insert into storage_policy default values;

-- Queues turn over all the time: by their size alone they would be vacuumed too late after a large load.
alter table tickstock.dirty set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                                 autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
alter table tickstock.scan_queue set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                                      autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
