create or replace procedure ohlcv_keep_house()
language plpgsql
as $$
declare
  policy public.storage_policy := (select p from public.storage_policy p);
  -- The feed's clock, but not beyond the real one: a single bar dated 2099 must not sweep everything away.
  clock timestamptz := (select least(latest, now()) from public.latest_minute() latest where latest is not null);
begin
  call tickstock.refuse_transaction_block('ohlcv_keep_house');
  if clock is null then
    return;
  end if;
  if not pg_try_advisory_lock(hashtext('tickstock.keep_house')) then
    raise notice 'nothing is done: another session is keeping house, or was interrupted at it and has not ended (pid %)',
      (select min(pid) from pg_catalog.pg_locks where locktype = 'advisory' and granted and objsubid = 1
       and database = (select oid from pg_catalog.pg_database where datname = current_database())
       and objid::bigint = hashtext('tickstock.keep_house')::bigint & x'ffffffff'::bigint);
    return;
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
  -- What is younger may interest an operator, piece by piece.
  perform tickstock.join_told(clock - interval '31 days', 1000);
  call tickstock.let_go('tickstock.keep_house');
end $$;
comment on procedure ohlcv_keep_house() is
  'Applies storage_policy: drops bars that are too old, moves old ones into the columnstore; and joins what REST told of single symbols more than a month ago. tickstock''s programs call it every hour. Call it outside a transaction block.';
