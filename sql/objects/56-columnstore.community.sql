create or replace procedure tickstock.to_columnstore(older_than timestamptz)
language plpgsql
as $$
declare
  chunk regclass;
begin
  for chunk in
    select format('%I.%I', c.chunk_schema, c.chunk_name)::regclass
    from timescaledb_information.chunks c
    join tickstock.storage s on s.stored_in = format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass
    where c.range_end <= older_than
      -- 1 is compressed, 9 is compressed with rows written since.
      and _timescaledb_functions.chunk_status(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass) <> 1
    order by c.range_end
  loop
    -- After corrections start afresh. What is compressed in place is hidden from older snapshots, those of
    -- a refresh under way among them; and rows that were taken out leave their space behind.
    if _timescaledb_functions.chunk_status(chunk) <> 0 then
      call public.convert_to_rowstore(chunk);
    end if;
    call public.convert_to_columnstore(chunk);
    commit;
  end loop;
end $$;
comment on procedure tickstock.to_columnstore(timestamptz) is
  'Moves chunks of bars and candles that end before this moment into the columnstore, those again that were corrected there since.';
