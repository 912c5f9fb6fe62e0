-- Programs read an infinite age as one of 0 days, and one of ten thousand years ended ohlcv_keep_house() with an error,
-- since there is no such time before the feed's clock. What is meant by either has its word already: null.
update storage_policy set keep_bars = null where keep_bars >= interval '1000 years';
update storage_policy set columnstore_after = null where columnstore_after >= interval '1000 years';
alter table storage_policy
  add constraint storage_policy_for_ever_is_null check (keep_bars < interval '1000 years'),
  add constraint storage_policy_never_is_null check (columnstore_after < interval '1000 years');
