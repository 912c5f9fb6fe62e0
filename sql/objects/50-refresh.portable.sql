-- Refreshing without continuous aggregates: dirty candles are computed anew, batch by batch.

-- Up to version 0.1 it took no argument.
drop procedure if exists ohlcv_refresh();
create or replace procedure ohlcv_refresh(wait boolean default true)
language plpgsql
as $$
declare
  -- A half hour that is still forming would be dirty again a minute later: it stays live.
  up_to timestamptz := public.candle_start('30min', public.latest_minute());
  newest bigint;
begin
  call tickstock.refuse_transaction_block('ohlcv_refresh');
  if not wait and not pg_try_advisory_xact_lock(hashtext('tickstock.refresh')) then
    return;
  end if;
  -- First, for a half hour whose marks lie in several batches would be computed once in each.
  perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));
  perform tickstock.thin_marks();
  perform tickstock.move_recent();
  commit;
  -- Writers go on meanwhile: what they add is for the next refresh, or this one would never end.
  newest := (select max(id) from tickstock.dirty);
  loop
    exit when tickstock.refresh_batch(up_to, newest, 50000) = 0;
    commit;
  end loop;
end $$;
comment on procedure ohlcv_refresh(boolean) is
  'Materializes the candles whose half hours have changed and are over. Changes cost, never results: the views are exact without it. Call it outside a transaction block. One runs at a time: another one waits for it, or with wait => false leaves the work to it.';
