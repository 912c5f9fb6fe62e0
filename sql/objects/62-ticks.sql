-- How trades come in: COPY into the temporary table incoming_ticks, then one call that merges them.

create or replace procedure tickstock.prepare_ticks()
language plpgsql
as $$
begin
  if to_regclass('pg_temp.incoming_ticks') is null then
    create temp table incoming_ticks (
      symbol text, at bigint, sequence bigint, price numeric, size numeric, conditions smallint[],
      exchange smallint, trade_id text, tape smallint, trf smallint, trf_at bigint
    ) on commit delete rows;
  end if;
end $$;
comment on procedure tickstock.prepare_ticks() is
  'Makes this session''s temporary table incoming_ticks, in which trades wait for merge_ticks(); times are in milliseconds after the epoch. It empties itself at each commit.';

create or replace function tickstock.merge_ticks(source text) returns bigint
language plpgsql
as $$
declare
  day_ahead constant bigint := 1000 * extract(epoch from now() + interval '1 day');
  inserted bigint;
begin
  with bad as (
    delete from pg_temp.incoming_ticks i where i.at > day_ahead returning i.*
  )
  insert into public.refused_bars (source, reason, payload)
  select merge_ticks.source, format('the time of a trade is more than a day in the future: %s ms', b.at), left(to_jsonb(b)::text, 2000)
  from bad b;
  -- In the order of the key: concurrent writers take their locks in one order.
  insert into public.ticks (symbol, ts, sequence, price, size, conditions, exchange, trade_id, tape, trf, trf_ts)
  select i.symbol, 'epoch'::timestamptz + i.at * interval '1 millisecond', i.sequence, i.price, i.size, i.conditions,
    i.exchange, i.trade_id, i.tape, i.trf,
    case when i.trf_at <= day_ahead then 'epoch'::timestamptz + i.trf_at * interval '1 millisecond' end
  from pg_temp.incoming_ticks i
  order by i.symbol, i.at, i.sequence
  on conflict do nothing;
  get diagnostics inserted = row_count;
  return inserted;
end $$;
comment on function tickstock.merge_ticks(text) is
  'Moves incoming_ticks into ticks and says how many were new: a trade that is there already stays as it is. Impossible ones go to refused_bars.';

create or replace function tickstock.doubt(symbols text[], minutes timestamptz[]) returns void
language sql
begin atomic
  insert into tickstock.doubts (symbol, ts)
  select d.symbol, d.ts from unnest(symbols, minutes) d (symbol, ts)
  -- A time that is wrong itself would be owed for ever.
  where d.ts >= tickstock.bars_since()
    and d.ts between public.feed_clock() - interval '10 days' and public.feed_clock() + tickstock.late()
  order by d.symbol, d.ts
  on conflict do nothing;
end;
comment on function tickstock.doubt(text[], timestamptz[]) is
  'Something came for these symbols and minutes too late to count, or broken: they are owed, those within the last ten days.';
comment on table tickstock.doubts is
  'Minutes of which something came that was no bar, or too late to count for one made of seconds or trades. They are owed until another source has told them.';
