-- Before new migrations: what would stand in their way. The objects, which run after them, make it anew.

-- PostgreSQL (17.12 and its like) alters no table whose row type a function uses.
drop function if exists tickstock.event_payload(public.events);
