-- A day is a chunk: many millions of trades.
select create_hypertable('ticks', by_range('ts', interval '1 day'), create_default_indexes => false);
