-- What was known when: each bar in each of its versions.

create or replace view ohlcv_1min_versions as
select r.symbol, r.ts,
  coalesce(lag(r.replaced_at) over version, (
    -- Whole seconds, rounded up: it may have been replaced within its first one.
    select least(timestamptz '2000-01-01 00:00+00' + make_interval(secs => b.came), r.replaced_at)
    from ohlcv_1min b where b.symbol = r.symbol and b.ts = r.ts and b.came is not null)) as known_from,
  r.replaced_at as known_until, lag(r.replaced_by) over version as source,
  r.open, r.high, r.low, r.close, r.volume, r.vwap, r.trades
from ohlcv_revisions r
window version as (partition by r.symbol, r.ts order by r.id)
union all
select b.symbol, b.ts, coalesce(last.replaced_at, timestamptz '2000-01-01 00:00+00' + make_interval(secs => b.came)), null, last.replaced_by,
  b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades
from ohlcv_1min b
left join lateral (
  select r.replaced_at, r.replaced_by from ohlcv_revisions r
  where r.symbol = b.symbol and r.ts = b.ts
    -- Revisions of a bar that was deleted before this one came do not tell when it came.
    and (r.replaced_at <= timestamptz '2000-01-01 00:00+00' + make_interval(secs => b.came - 1)) is not true
  order by r.id desc limit 1) last on true;
comment on view ohlcv_1min_versions is
  'Minute bars as they are and as they were before each correction, with the times between which the database had them, by its clock. known_until null: until now. source: what brought this version, null for the first one. Example: select * from ohlcv_1min_versions where symbol = ''AAPL'' and ts = ''2025-11-24 15:00+00'' order by known_until.';
call tickstock.copy_comments('ohlcv_1min', 'ohlcv_1min_versions');
comment on column ohlcv_1min_versions.known_from is 'From when the database held this version, by its clock. For the first version: when the bar came (live, or by a backfill years later), to the second, rounded up. Null: the bar came before version 0.2, which did not keep it. known_from <= t and (known_until > t) is not false asks what was known at t.';
comment on column ohlcv_1min_versions.known_until is 'Until when the database held this version; null: it still does.';
comment on column ohlcv_1min_versions.source is 'What brought this version: feed, rest, the name of a file, or sql for a plain statement; null for the first one.';
