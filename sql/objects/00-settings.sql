-- Settings of the database. pg_dump leaves them out, so each tickstock db migrate sees to them.
create or replace function tickstock.apply_settings() returns void
language plpgsql
as $$
declare
  wanted record;
begin
  for wanted in
    select name, value
    from (values
      -- Candles are many small look-ups, whose cost the planner overrates: compiling such a plan takes
      -- seconds, running it milliseconds. (PostgreSQL 19 has the compiler off by default, too.)
      ('jit', 'off', true),
      -- A correction of old bars may concern any number of them; by default the columnstore takes 100,000.
      ('timescaledb.max_tuples_decompressed_per_dml_transaction', '0',
       exists (select from tickstock.migrations where engine = 'community'))
    ) as v (name, value, fits)
    where fits and not exists (  -- what somebody has set otherwise stays
      select from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
      where s.setrole = 0 and starts_with(c, name || '=')
        and s.setdatabase = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()))
  loop
    begin
      execute format('alter database %I set %s = %L', current_database(), wanted.name, wanted.value);
    exception when insufficient_privilege then
      raise warning 'not allowed to set % = % for database %: ask its owner to', wanted.name, wanted.value, current_database();
    end;
  end loop;
end $$;
comment on function tickstock.apply_settings() is
  'Sets for this database what tickstock runs best with, unless it is set otherwise already. tickstock db migrate calls it.';

select tickstock.apply_settings();
