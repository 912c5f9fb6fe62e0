-- The form in which events leave the database.

-- Up to version 0.1 it was jsonb.
drop function if exists tickstock.event_payload(public.events);
-- As text put together, which takes a third of the time of jsonb: each change is told twice, and there are tens of
-- thousands a minute. In jsonb's order and with its spaces; what needs no quoting has none.
create function tickstock.event_payload(event public.events) returns text
language sql stable
return '{"id": ' || (event).id || ', "late": ' || (event).late::text || ', "price": ' || (event).price || ', "change": ' || (event).change
  || ', "symbol": ' || to_json((event).symbol)::text || ', "pattern": ' || to_json((event).pattern)::text
  || ', "strength": ' || (event).strength || ', "direction": "' || (event).direction
  || '", "retracted": ' || ((event).retracted_at is not null)::text || ', "timeframe": "' || (event).timeframe
  || '", "timestamp": "' || to_char((event).ts at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || '"}';
comment on function tickstock.event_payload(public.events) is
  'JSON: an event as it is published on Redis and by NOTIFY on the channel tickstock_patterns. The numbers behind it are in events.details.';

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
