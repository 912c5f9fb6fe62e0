-- The form in which events leave the database.

create or replace function tickstock.event_payload(event public.events) returns jsonb
language sql stable
return jsonb_build_object(
  'id', (event).id, 'pattern', (event).pattern, 'symbol', (event).symbol,
  'timestamp', to_char((event).ts at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  'direction', (event).direction, 'timeframe', (event).timeframe, 'price', (event).price,
  'change', (event).change, 'strength', (event).strength, 'late', (event).late, 'retracted', (event).retracted_at is not null);
comment on function tickstock.event_payload(public.events) is
  'An event as it is published on Redis and by NOTIFY on the channel tickstock_patterns. The numbers behind it are in events.details.';

create or replace function tickstock.events_to_publish() returns bigint
language sql stable
return (select count(*) from public.events e where e.change > (select p.up_to from tickstock.publishing p));
comment on function tickstock.events_to_publish() is
  'Changes of events that wait for Redis; 0 where there has never been a Redis.';

create or replace procedure tickstock.begin_publishing()
language sql
begin atomic
  insert into tickstock.publishing (since, up_to)
  select coalesce(max(e.change), 0), coalesce(max(e.change), 0) from public.events e on conflict do nothing;
end;
comment on procedure tickstock.begin_publishing() is
  'From now on each change of an event is for Redis. Nothing happens where that is so already.';
