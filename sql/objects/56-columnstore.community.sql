-- The columnstore: old bars, candles and ticks by columns.

create or replace function tickstock.is_to_move(chunk text) returns boolean
language plpgsql stable
as $$
declare
  found_one boolean;
begin
  execute format('select exists (select from only %s)', chunk) into found_one;
  -- Of rows that are gone a page may be left, which is not worth a move.
  return found_one or pg_relation_size(chunk::regclass) > current_setting('block_size')::integer
    -- As a whole in the columnstore: moved by another, or by a version that left it like that.
    or _timescaledb_functions.chunk_status(chunk::regclass) = 1;
exception when undefined_table or undefined_object then
  return false;  -- dropped meanwhile
end $$;
comment on function tickstock.is_to_move(text) is
  'Whether rows of this chunk, or the space they left behind, are outside the columnstore: all of them, or those that were written since it was moved there.';

create or replace procedure tickstock.keep_rowstore_in_plans(chunk regclass)
language plpgsql
as $$
declare
  written text := (select string_agg(quote_ident(attname), ', ') from pg_catalog.pg_attribute
                   where attrelid = chunk and attnum > 0 and not attisdropped and attgenerated = '');
begin
  -- To TimescaleDB it is written to when a row has been offered, whatever becomes of that. No trigger fires.
  if exists (select from pg_catalog.pg_index where indrelid = chunk and indisunique) then
    execute format('insert into %1$s (%2$s) select %2$s from %1$s limit 1 on conflict do nothing', chunk, written);
  else
    execute format('insert into %1$s (symbol, ts) select %2$L, ts from %1$s limit 1', chunk, '');
    execute format('delete from %s where symbol = %L', chunk, '');
  end if;
end $$;
comment on procedure tickstock.keep_rowstore_in_plans(regclass) is
  'Has TimescaleDB take a chunk of the columnstore for one with rows outside of it. Else plans leave these out until the first write, and a plan that is made or kept while it happens misses what was written.';

create or replace procedure tickstock.to_columnstore(older_than timestamptz)
language plpgsql
as $$
declare
  chunk record;
  next_change xid8;
  has_rows boolean;
begin
  commit;  -- a caller that has written would be waited for
  for chunk in
    select format('%I.%I', c.chunk_schema, c.chunk_name) as name, s.relation, c.range_start, c.range_end
    from timescaledb_information.chunks c
    join tickstock.storage s on s.stored_in = format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass
    where c.range_end <= older_than
      and tickstock.is_to_move(format('%I.%I', c.chunk_schema, c.chunk_name))
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
        execute format('select exists (select from %s)', chunk.name) into has_rows;
        if has_rows then
          -- A symbol's bars of a week, 4,800 at most, in one batch take less space than in batches of a thousand.
          -- Not so candles, of which the last few hundred are read.
          if chunk.relation = 'ohlcv_1min' then
            perform set_config('timescaledb.compression_batch_size_limit', '4800', true);
          end if;
          call public.convert_to_columnstore(chunk.name::regclass);
          call tickstock.keep_rowstore_in_plans(chunk.name::regclass);
        end if;
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
