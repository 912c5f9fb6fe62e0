-- A correction of old bars may concern any number of them; by default the columnstore takes 100,000.
do $$
begin
  execute format('alter database %I set timescaledb.max_tuples_decompressed_per_dml_transaction = 0', current_database());
exception when insufficient_privilege then
  raise warning 'not allowed to set timescaledb.max_tuples_decompressed_per_dml_transaction = 0 for database %: ask its owner to', current_database();
end $$;
