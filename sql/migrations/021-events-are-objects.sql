-- Whoever reads an event takes its details and parameters for objects; a list, written by a person, broke the chart
-- of its symbol for everybody.
update events set
  details = case when jsonb_typeof(details) = 'object' then details else jsonb_build_object('value', details) end,
  parameters = case when jsonb_typeof(parameters) = 'object' then parameters else '{}' end
where jsonb_typeof(details) <> 'object' or jsonb_typeof(parameters) <> 'object';
alter table events
  add constraint events_details check (jsonb_typeof(details) = 'object'),
  add constraint events_parameters check (jsonb_typeof(parameters) = 'object');
