create or replace procedure ohlcv_keep_house()
language plpgsql
as $$
declare
  policy public.storage_policy := (select p from public.storage_policy p);
  -- The feed's clock, but not beyond the real one: a single bar dated 2099 must not sweep everything away.
  clock timestamptz := (select least(latest, now()) from public.latest_minute() latest where latest is not null);
begin
  call tickstock.refuse_transaction_block('ohlcv_keep_house');
  if clock is null or not pg_try_advisory_lock(hashtext('tickstock.keep_house')) then
    return;  -- there is nothing, or another session is at it
  end if;
  if policy.keep_bars is not null then
    call public.drop_bars(clock - policy.keep_bars);
  end if;
  if policy.columnstore_after is not null then
    call tickstock.to_columnstore(clock - policy.columnstore_after);
  end if;
  -- One that is new stands for all that were: their number alone would come back.
  if (select count(*) from tickstock.unqueued_changes) > 1000 then
    delete from tickstock.unqueued_changes;
    perform tickstock.note_unqueued_change();
  end if;
  perform pg_advisory_unlock(hashtext('tickstock.keep_house'));
end $$;
comment on procedure ohlcv_keep_house() is
  'Applies storage_policy: drops bars that are too old, moves old ones into the columnstore. tickstock''s programs call it every hour. Call it outside a transaction block.';
