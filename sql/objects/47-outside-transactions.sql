-- Procedures that commit as they go can't run within a transaction block. PostgreSQL says so with three words,
-- at the first commit; these say what to do.

-- In a function no commit is allowed whatever surrounds it: what is said then, in the server's language.
create or replace function tickstock.no_commit_here() returns text
language plpgsql
as $$
begin
  commit;
exception when invalid_transaction_termination then
  return sqlerrm;
end $$;
comment on function tickstock.no_commit_here() is
  'What the server says of a commit within a transaction block or a function.';

create or replace procedure tickstock.refuse_transaction_block(caller text)
language plpgsql
as $$
declare
  told text;
begin
  -- Within a block with an exception handler a commit never succeeds; but why not, differs.
  begin
    commit;
  exception when invalid_transaction_termination then
    told := sqlerrm;
  end;
  if told = tickstock.no_commit_here() then
    raise exception '%() commits as it goes: call it outside a transaction block', caller
      using errcode = 'active_sql_transaction',
        hint = 'In psql: without begin, or after commit. psycopg: connect with autocommit=True. Functions and do blocks in a transaction can''t call it.';
  end if;
  -- By which the transactions that it begins are, after each commit.
  perform tickstock.refuse_isolation(caller || '()', 'default_transaction_isolation');
end $$;
comment on procedure tickstock.refuse_transaction_block(text) is
  'Raises an error if the procedure of this name, which calls this one, has been called within a transaction block or a function, where it could not commit, or if its transactions would not see what others commit.';

create or replace procedure tickstock.let_go(name text)
language plpgsql
as $$
begin
  -- More than once where a call of this session failed: nobody has let go for it.
  while exists (select from pg_catalog.pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objsubid = 1
                and database = (select oid from pg_catalog.pg_database where datname = current_database())
                and objid::bigint = hashtext(name)::bigint & x'ffffffff'::bigint) loop
    perform pg_advisory_unlock(hashtext(name));
  end loop;
end $$;
comment on procedure tickstock.let_go(text) is
  'Releases the advisory lock of this name, which this session holds, however often it was taken.';
