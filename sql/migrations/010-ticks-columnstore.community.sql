-- Old trades are stored by columns, as bars are. ohlcv_keep_house() moves them.
alter table ticks set (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'ts, sequence');
