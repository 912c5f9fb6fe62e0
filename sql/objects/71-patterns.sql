-- How patterns are set: what is mistyped is refused where it is typed.

create or replace function tickstock.before_setting() returns trigger
language plpgsql
as $$
declare
  there text := (select string_agg(t.timeframe, ', ' order by t.position) from public.timeframes t);
  known text := coalesce((select string_agg(k, ', ') from jsonb_object_keys(new.default_parameters) k), 'none');
  wrong text;
  value jsonb;
begin
  -- Only what is changed: what an older version let through, or a newer one no longer knows, hinders nothing else.
  if new.timeframes is distinct from old.timeframes then
    select coalesce(quote_literal(t), 'null') into wrong
    from unnest(new.timeframes) t where t is null or t not in (select f.timeframe from public.timeframes f) limit 1;
    if found or array_ndims(new.timeframes) > 1 then
      raise exception 'timeframes of pattern % are %: there is no timeframe %', new.pattern, new.timeframes, coalesce(wrong, 'that is a list')
        using errcode = 'check_violation',
          hint = format('There are: %s. Write them like timeframes = ''{5min, 15min}''; null: those for which the pattern was made.', there);
    end if;
  end if;
  if new.parameters is distinct from old.parameters then
    -- What is no object, the table itself refuses.
    for wrong, value in select e.key, e.value from jsonb_each(case jsonb_typeof(new.parameters) when 'object' then new.parameters else '{}' end) e loop
      if not new.default_parameters ? wrong then
        raise exception 'pattern % has no parameter % (it has: %)', new.pattern, wrong, known
          using errcode = 'check_violation',
            hint = format('Correct its name, or leave it out. `tickstock patterns show %s` tells what each means.', new.pattern);
      end if;
      -- As much as a double holds.
      if (case jsonb_typeof(value) when 'number' then abs(value::numeric) > 1.797e308 else true end) then
        raise exception 'parameter % of pattern % is %, not a number', wrong, new.pattern, value
          using errcode = 'check_violation',
            hint = format('Write it like parameters = ''{"%s": %s}'', or leave it out: it keeps its default.', wrong, new.default_parameters ->> wrong);
      end if;
    end loop;
  end if;
  return new;
end $$;
comment on function tickstock.before_setting() is
  'Refuses settings of patterns that no scanner could obey: an unknown timeframe or parameter, a parameter that is no number. Whether a number is in a parameter''s range, only the pattern knows: the scanner tells.';

create or replace trigger before_setting before update of timeframes, parameters on patterns
  for each row when (old.timeframes is distinct from new.timeframes or old.parameters is distinct from new.parameters)
  execute function tickstock.before_setting();
