-- TimescaleDB's scheduler keeps candles fresh and house clean also while no program of tickstock runs.
-- To do without: select alter_job(job_id, scheduled => false) from timescaledb_information.jobs where proc_schema = 'tickstock';
-- A job has a session of its own, with the settings of the database and its owner.

create or replace procedure tickstock.refresh_job(job_id integer, config jsonb)
language plpgsql
as $$
begin
  perform set_config('default_transaction_isolation', 'read committed', false);  -- as our programs do, see connect()
  commit;
  call public.ohlcv_refresh(wait => false);
end $$;
comment on procedure tickstock.refresh_job(integer, jsonb) is 'Job, every ten seconds: ohlcv_refresh().';

create or replace procedure tickstock.keep_house_job(job_id integer, config jsonb)
language plpgsql
as $$
begin
  perform set_config('default_transaction_isolation', 'read committed', false);  -- as our programs do, see connect()
  commit;
  call public.ohlcv_keep_house();
end $$;
comment on procedure tickstock.keep_house_job(integer, jsonb) is 'Job, every hour: ohlcv_keep_house().';

select add_job(to_regproc(format('tickstock.%s', job.name)), job.every)
from (values ('refresh_job', interval '10 seconds'), ('keep_house_job', interval '1 hour')) job (name, every)
where not exists (select from timescaledb_information.jobs j where j.proc_schema = 'tickstock' and j.proc_name = job.name);
