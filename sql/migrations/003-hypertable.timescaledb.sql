-- On TimescaleDB, of either edition, the bars are a hypertable. A week is a chunk: 20 million bars at
-- 10,000 symbols, and not thousands of chunks at ten symbols over ten years.
select create_hypertable('ohlcv_1min', by_range('ts', interval '7 days'), create_default_indexes => false);
