create or replace procedure tickstock.to_columnstore(older_than timestamptz)
language plpgsql
as $$
begin
  null;
end $$;
comment on procedure tickstock.to_columnstore(timestamptz) is 'Does nothing: this engine has no columnstore.';
