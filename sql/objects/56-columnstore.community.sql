create or replace procedure tickstock.to_columnstore(older_than timestamptz)
language plpgsql
as $$
declare
  chunk record;
  next_change xid8;
begin
  commit;  -- a caller that has written would be waited for
  for chunk in
    select format('%I.%I', c.chunk_schema, c.chunk_name) as name, s.relation, c.range_start, c.range_end
    from timescaledb_information.chunks c
    join tickstock.storage s on s.stored_in = format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass
    where c.range_end <= older_than
      -- 1 is compressed, 9 is compressed with rows written since.
      and _timescaledb_functions.chunk_status(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass) <> 1
    order by c.range_end
  loop
    -- What is moved looks in every snapshot as it does now, in older ones too. So there must be none from
    -- before its last change. With the refresher's lock candles and marks stay as they are; transactions and
    -- snapshots from before are waited for; and a chunk with a mark from since is left for the next time.
    -- Nobody waits for us meanwhile but refreshers, and we not for them: the chunk is locked but to be moved.
    perform set_config('lock_timeout', '1min', true);
    begin
      perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));
    exception when lock_not_available then
      raise warning 'nothing more is moved into the columnstore now: a refresh has not ended in a minute';
      return;
    end;
    next_change := pg_snapshot_xmax(pg_current_snapshot());
    for i in 1 .. 600 loop
      -- In this order: once these transactions have ended, there are no new snapshots without them.
      exit when pg_snapshot_xmin(pg_current_snapshot()) >= next_change
        and not tickstock.has_older_snapshots(next_change::xid, but_of_refreshers => true);
      if i = 600 then
        raise warning 'nothing more is moved into the columnstore now: a transaction that began before has not ended in a minute'
          using hint = 'The next ohlcv_keep_house() tries again.';
        return;
      end if;
      perform pg_sleep(0.1);
      perform pg_stat_clear_snapshot();
    end loop;
    begin
      perform set_config('lock_timeout', '10s', true);
      execute format('lock table %s in exclusive mode', chunk.name);
      if chunk.relation <> 'ohlcv_1min' or not exists (
        select from tickstock.dirty d
        where d.granule >= chunk.range_start and d.granule < chunk.range_end and age(d.xmin) <= age(next_change::xid))
      then
        -- After corrections start afresh. What is compressed in place is hidden from older snapshots; and
        -- rows that were taken out leave their space behind.
        if _timescaledb_functions.chunk_status(chunk.name::regclass) <> 0 then
          call public.convert_to_rowstore(chunk.name::regclass);
        end if;
        call public.convert_to_columnstore(chunk.name::regclass);
      end if;
    exception
      when undefined_table then
        null;  -- dropped meanwhile
      when lock_not_available or deadlock_detected then
        raise warning '% is not moved into the columnstore now: %', chunk.name, sqlerrm
          using hint = 'The next ohlcv_keep_house() tries again.';
    end;
    commit;
  end loop;
end $$;
comment on procedure tickstock.to_columnstore(timestamptz) is
  'Moves chunks of bars and candles that end before this moment into the columnstore, those again that were corrected there since. Waits for transactions that see them as they were, at most a minute. Call it outside a transaction block.';
