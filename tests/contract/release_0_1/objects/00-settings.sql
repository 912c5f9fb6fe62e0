-- Candles are many small look-ups, whose cost the planner overrates: compiling such a plan takes
-- seconds, running it milliseconds. (PostgreSQL 19 has the compiler off by default, too.)
do $$
begin
  execute format('alter database %I set jit = off', current_database());
exception when insufficient_privilege then
  raise warning 'not allowed to set jit = off for database %: ask its owner to', current_database();
end $$;
