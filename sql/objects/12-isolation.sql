-- What waits for others has to see what these have committed meanwhile. In a transaction whose snapshot stays
-- (repeatable read, serializable) it would not: a mark or a bar would be passed over, and its candles stay wrong.

create or replace function tickstock.refuse_isolation(caller text, setting text) returns void
language plpgsql stable
as $$
begin
  if current_setting(setting) in ('repeatable read', 'serializable') then
    raise exception '% must see what others have just committed: not possible while % is %', caller, setting, current_setting(setting)
      using errcode = 'invalid_transaction_state',
        hint = 'First: set default_transaction_isolation = ''read committed''. A transaction that is open begins anew.';
  end if;
end $$;
comment on function tickstock.refuse_isolation(text, text) is
  'Raises an error if this setting, transaction_isolation or default_transaction_isolation, gives a transaction one snapshot from its beginning to its end.';
