-- Views that show columns of a table explain them in the table's words.
create or replace procedure tickstock.copy_comments(source regclass, target regclass)
language plpgsql
as $$
declare
  col record;
begin
  for col in
    select t.attname, pg_catalog.col_description(s.attrelid, s.attnum) as says
    from pg_catalog.pg_attribute s join pg_catalog.pg_attribute t on t.attname = s.attname and t.attrelid = target
    where s.attrelid = source and s.attnum > 0 and not s.attisdropped
  loop
    execute format('comment on column %s.%I is %L', target, col.attname, col.says);
  end loop;
end $$;
comment on procedure tickstock.copy_comments(regclass, regclass) is
  'Explains the columns of a view as those of the same name in a table. Its other columns are explained afterwards.';
