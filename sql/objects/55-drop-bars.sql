-- Retention. Candles outlive their bars: what they are made of is frozen at the moment the bars go.

create or replace function tickstock.set_bars_since(since timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'  -- as in tickstock.move_recent()
as $$
begin
  execute format('create or replace function tickstock.bars_since() returns timestamptz
                  language sql stable parallel safe return %L::timestamptz', since);
end $$;
comment on function tickstock.set_bars_since(timestamptz) is 'Sets tickstock.bars_since(). Only drop_bars() may.';

create or replace function tickstock.has_older_snapshots(than xid, but_of_refreshers boolean default false) returns boolean
language sql volatile
begin atomic
  select exists (
    select from pg_catalog.pg_stat_activity a
    where a.datname = current_database() and a.pid <> pg_backend_pid()
      -- Autovacuum is nobody's. What kind another role's session is may be hidden from us.
      and a.usesysid is not null and a.backend_type is distinct from 'walsender'
      and age(a.backend_xmin) > age(than)
      -- Who waits for the refresher's lock reads nothing before having it, and then by a new snapshot.
      and not (but_of_refreshers and exists (
        select from pg_catalog.pg_locks l
        where l.pid = a.pid and l.locktype = 'advisory' and l.objsubid = 1 and not l.granted
          and l.objid::bigint = hashtext('tickstock.refresh')::bigint & x'ffffffff'::bigint)));
end;
comment on function tickstock.has_older_snapshots(xid, boolean) is
  'Whether another session still reads this database as it was when a transaction before this one was under way; those that wait for the refresher''s lock aside, if told so.';

create or replace procedure drop_bars(before timestamptz)
language plpgsql
as $$
declare
  -- Whole weeks, as the chunks are.
  since timestamptz := date_bin('7 days', before, '1970-01-01 00:00+00');
  next_change xid;
  chunk_names text[];
  chunk_ends timestamptz[];
begin
  call tickstock.refuse_transaction_block('drop_bars');
  while since is null or since > tickstock.bars_since() loop
    -- Each time: marks of a time that the feed's clock has not reached are not refreshed.
    if (since <= public.latest_minute() - interval '7 days') is not true then
      raise exception 'drop_bars(%) would drop bars of the feed''s last week: give a time before %', before,
        coalesce(public.latest_minute() - interval '7 days', '-infinity');
    end if;
    call public.ohlcv_refresh();
    -- No writer may be under way: what it changes would be gone before it is in its candles.
    lock table public.ohlcv_1min in share row exclusive mode;
    if ((select min(granule) from tickstock.dirty) < since) is not true then
      perform tickstock.set_bars_since(since);
    end if;
    commit;
  end loop;
  -- From now on no candle asks for these bars, apart from those in older snapshots, in which their marks
  -- are still there. These bars are gone from every snapshot at once, so wait for such transactions.
  since := tickstock.bars_since();
  commit;
  next_change := pg_snapshot_xmax(pg_current_snapshot())::xid;
  for i in 1 .. 600 loop
    exit when not tickstock.has_older_snapshots(next_change);
    if i = 600 then
      raise warning 'bars before % are not dropped yet: a transaction that began before has not ended in a minute', since
        using hint = 'Call drop_bars() again; ohlcv_keep_house() does.';
      return;
    end if;
    perform pg_sleep(0.1);
    commit;
  end loop;
  if public.tickstock_engine() <> 'postgres' then
    execute 'select array_agg(format(''%I.%I'', chunk_schema, chunk_name) order by range_end), array_agg(range_end order by range_end)
             from timescaledb_information.chunks
             where hypertable_schema = ''public'' and hypertable_name = ''ohlcv_1min'' and range_end <= $1' into chunk_names, chunk_ends using since;
    commit;
    for i in 1 .. coalesce(cardinality(chunk_names), 0) loop
      -- One by one, and the table before its indexes, which drop_chunks() would lock first: no deadlock with readers.
      begin
        execute format('lock table only %s in access exclusive mode', chunk_names[i]);
        execute 'select public.drop_chunks(''public.ohlcv_1min'', older_than => $1)' using chunk_ends[i];
      exception when undefined_table then
        null;  -- dropped meanwhile
      end;
      commit;
    end loop;
  end if;
  commit;
  -- Without chunks, and for what a chunk of another width has left.
  loop
    delete from public.ohlcv_1min b
    using (select symbol, ts from public.ohlcv_1min where ts < since limit 100000) old
    where b.symbol = old.symbol and b.ts = old.ts and b.ts < since;
    exit when not found;
    commit;
  end loop;
  perform tickstock.note_unqueued_change();
  delete from public.ohlcv_revisions where ts < since;
  delete from public.backfills where ends <= since;
end $$;
comment on procedure drop_bars(timestamptz) is
  'Drops minute bars before this moment, in whole weeks. Their candles are brought up to date first, and stay for good; later bars, corrections and changes of the calendar in that time are refused. Call it outside a transaction block. Example: call drop_bars(now() - interval ''2 years'');';
