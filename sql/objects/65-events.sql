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
