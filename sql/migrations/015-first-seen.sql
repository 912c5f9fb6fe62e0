-- When each bar first came, so that what was known when can be asked of arrivals too, not of corrections only.
-- Whole seconds as an integer: from bar to bar they differ by the same sixty or so, which the columnstore keeps in
-- a fraction of a byte; a time with microseconds would take four bytes a bar.
alter table ohlcv_1min add column came integer;
-- Set apart from adding: bars that are there came nobody knows when. Stable, for a volatile default has COPY
-- write row by row. Rounded up: nobody is said to have known a bar before it came.
alter table ohlcv_1min alter column came set default ceil(date_part('epoch', statement_timestamp()) - 946684800)::integer;
comment on column ohlcv_1min.came is
  'When the bar first came, by the database''s clock: seconds since 2000-01-01 00:00 UTC, rounded up; a correction leaves it as it is. ohlcv_1min_versions tells it as a time. Null: it came before version 0.2, nobody knows when.';
