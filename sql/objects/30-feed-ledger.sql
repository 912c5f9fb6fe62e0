-- What the live feed has covered, and what it still owes. All in the feed's own time.
--
-- A bar may come, and change, up to a quarter of an hour late. So a stretch of the live feed covers its
-- minutes from a quarter of an hour after its first bar (that one may have been late, and the minutes
-- before it had gone by) to a quarter of an hour before its last one (their corrections were missed).

create or replace function tickstock.late() returns interval
language sql immutable parallel safe return interval '15 minutes';
comment on function tickstock.late() is 'How late a bar may come, or be corrected.';

-- Number of our advisory locks, with the id of the stretch as the second one.
create or replace function tickstock.stretch_lock() returns integer
language sql immutable parallel safe return 815201;
comment on function tickstock.stretch_lock() is 'First key of the advisory lock that the writer of a stretch holds; the second is the id of the stretch.';

create or replace function tickstock.covered(starts timestamptz, latest timestamptz, alive boolean) returns tstzrange
language sql immutable parallel safe
return case
  when starts + tickstock.late() + interval '1 minute' < latest - case when alive then interval '0' else tickstock.late() end
    then tstzrange(starts + tickstock.late() + interval '1 minute', latest - case when alive then interval '0' else tickstock.late() end)
  else 'empty' end;
comment on function tickstock.covered(timestamptz, timestamptz, boolean) is
  'The minutes that a stretch has covered for certain, which has bars of minutes from starts to latest; alive: it goes on.';

create or replace view feed_live as
select s.id, s.feed, s.channel, s.symbols, s.starts, s.latest, s.bars, s.opened_at, s.closed_at, s.reason, s.intended,
  a.alive,
  tickstock.covered(s.starts, s.latest, a.alive) as covered,
  s.frames_waiting, s.spilled_bytes, s.stored_after
from feed_stretches s
cross join lateral (
  select s.closed_at is null and exists (
    select from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.classid = tickstock.stretch_lock()::oid and l.objid = s.id::oid and l.objsubid = 2
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())) as alive
) a;
comment on view feed_live is
  'Stretches of the live feed, as in feed_stretches, with two more columns: alive (being written now), and covered (the minutes of which all bars and their corrections have certainly come; may be empty).';

call tickstock.copy_comments('feed_stretches', 'feed_live');
comment on column feed_live.alive is 'Whether a session is still writing this stretch.';
comment on column feed_live.covered is 'The minutes of which all bars, and all their corrections, have come; of symbols that were kept when the symbols were changed, those in between too.';

create or replace function tickstock.open_stretch(feed text, channel text, symbols text[]) returns bigint
language sql
begin atomic
  insert into public.feed_stretches (feed, channel, symbols) values (open_stretch.feed, open_stretch.channel, open_stretch.symbols)
  returning id;
end;
comment on function tickstock.open_stretch(text, text, text[]) is 'A subscription begins; symbols null: to all.';

create or replace function tickstock.hold_stretch(id bigint) returns void
language sql
begin atomic
  select case when not exists (
      select from pg_catalog.pg_locks l
      where l.pid = pg_backend_pid() and l.locktype = 'advisory' and l.objsubid = 2
        and l.classid = tickstock.stretch_lock()::oid and l.objid = hold_stretch.id::oid)
    then pg_advisory_lock_shared(tickstock.stretch_lock(), hold_stretch.id::integer) end;
end;
comment on function tickstock.hold_stretch(bigint) is 'This session writes the stretch, for as long as it lasts: until then it is alive.';

create or replace function tickstock.extend_stretch(id bigint, first timestamptz, latest timestamptz, bars bigint,
                                                    frames_waiting integer default null, spilled_bytes bigint default null,
                                                    stored_after interval default null) returns void
language sql
begin atomic
  -- A minute that has not begun was not covered: a bar with a wrong time must not hide what is missed until then.
  update public.feed_stretches s
  set starts = greatest(s.starts, case when first > clock_timestamp() then date_trunc('minute', clock_timestamp()) else first end),
    latest = greatest(s.latest, least(extend_stretch.latest, date_trunc('minute', clock_timestamp()))), bars = s.bars + extend_stretch.bars,
    frames_waiting = extend_stretch.frames_waiting, spilled_bytes = extend_stretch.spilled_bytes, stored_after = extend_stretch.stored_after
  where s.id = extend_stretch.id;
end;
comment on function tickstock.extend_stretch(bigint, timestamptz, timestamptz, bigint, integer, bigint, interval) is
  'Bars have come by a stretch: where it begins (null: as was told before; later: the first one has turned out to be a late one), the start of the latest one, and their number; and what waits behind them.';

create or replace function tickstock.close_stretch(id bigint, reason text, intended boolean) returns void
language sql
begin atomic
  update public.feed_stretches s
  set closed_at = clock_timestamp(), reason = close_stretch.reason, intended = close_stretch.intended
  where s.id = close_stretch.id and s.closed_at is null;
end;
comment on function tickstock.close_stretch(bigint, text, boolean) is 'A stretch has ended; intended: by the operator''s wish.';

create or replace function tickstock.change_stretch(id bigint, symbols text[]) returns bigint
language sql
begin atomic
  with ended as (
    update public.feed_stretches s
    set closed_at = clock_timestamp(), reason = 'the symbols were changed', intended = true
    where s.id = change_stretch.id and s.closed_at is null
    returning s.feed, s.channel, s.closed_at
  )
  -- Opened at the very moment the other is closed: that says which one it goes on from.
  insert into public.feed_stretches (feed, channel, symbols, opened_at)
  select e.feed, e.channel, change_stretch.symbols, e.closed_at from ended e
  returning id;
end;
comment on function tickstock.change_stretch(bigint, text[]) is
  'The symbols of a subscription were changed, and the connection goes on: the stretch that follows, or null if this one has ended. Of symbols in both, nothing is missing in between.';

create or replace function tickstock.live_runs(of_symbol text default null)
returns table (symbol text, id bigint, starts timestamptz, latest timestamptz, covered tstzmultirange,
               alive boolean, newest timestamptz, intended boolean, closed_at timestamptz)
language sql stable
begin atomic
  with stretch as materialized (
    select l.id, l.starts, l.latest, l.covered, l.alive, l.intended, l.closed_at, follows.id as follows,
      case when of_symbol is null or l.symbols is null then coalesce(l.symbols, array['*']) else array[of_symbol] end as symbols,
      follows.id is not null or exists (
        select from public.feed_stretches n where l.intended and n.feed = l.feed and n.opened_at = l.closed_at and n.id > l.id) as joined
    from public.feed_live l
    left join public.feed_stretches follows
      on follows.intended and follows.feed = l.feed and follows.closed_at = l.opened_at and follows.id < l.id
    where of_symbol is null or l.symbols is null or of_symbol = any (l.symbols)
  ), alone as (
    -- One list of thousands of symbols has hundreds of stretches in a year: counted once, not for each symbol.
    select s.symbols, max(s.id) as id, min(s.starts) as starts, max(s.latest) as latest, range_agg(s.covered) as covered
    from stretch s where not s.joined group by s.symbols
  ), wish as (
    select w.symbol, s.id, s.starts, s.latest, s.alive, s.follows,
      lag(s.id) over (partition by w.symbol order by s.id) as before
    from stretch s cross join lateral unnest(s.symbols) w (symbol) where s.joined
  ), numbered as (
    select w.*, count(*) filter (where w.follows is distinct from w.before) over (partition by w.symbol order by w.id) as run
    from wish w
  ), run as (
    select n.symbol, max(n.id) as id, min(n.starts) as starts, max(n.latest) as latest, bool_or(n.alive) as alive
    from numbered n group by n.symbol, n.run
  )
  select w.symbol, a.id, a.starts, a.latest, a.covered, s.alive, s.latest, s.intended, s.closed_at
  from alone a join stretch s on s.id = a.id cross join lateral unnest(a.symbols) w (symbol)
  union all
  select r.symbol, r.id, r.starts, r.latest, tstzmultirange(tickstock.covered(r.starts, r.latest, r.alive)),
    r.alive, r.latest, s.intended, s.closed_at
  from run r join stretch s on s.id = r.id;
end;
comment on function tickstock.live_runs(text) is
  'Per symbol (* stands for all symbols) what its stretches have brought: each run that only changes of other symbols divide, and all that no change joins to another as one. id, alive, newest (its latest minute), intended, closed_at: of the newest one. of_symbol: only what concerns that symbol; null: all.';

create or replace function tickstock.owed(until timestamptz)
returns table (symbol text, starts timestamptz, ends timestamptz)
language sql stable
begin atomic
  with time as (
    -- Nothing is promised of the hours when the market is closed.
    select max(least(s.ends, owed.until)) as until from public.sessions s
    where s.day between (owed.until at time zone 'America/New_York')::date - 10 and (owed.until at time zone 'America/New_York')::date
      and s.starts < owed.until
  ), promise as (
    -- From the first bar that ever came for the symbol, to where its newest stretch has come; beyond
    -- that one, if it ended otherwise than it was meant to, or was to follow another one and brought nothing.
    select r.symbol, min(r.starts) as starts,
      (array_agg(case when r.alive and r.newest is not null then r.newest
                      when r.intended and r.newest is not null then null
                      else least((select until from time), case when r.intended then r.closed_at end) end order by r.id desc))[1] as ends,
      max(r.latest) + interval '1 minute' as at_least,
      (array_agg(r.alive and r.newest is not null order by r.id desc))[1] as goes_on,
      range_agg(r.covered) as covered
    from tickstock.live_runs() r group by r.symbol having min(r.starts) is not null
  ), told as (
    select b.symbol, range_agg(tstzrange(b.starts, b.ends)) as stretches
    from public.backfills b where b.settled group by b.symbol
  ), missing as (
    select p.symbol, tstzmultirange(tstzrange(p.starts, greatest(p.starts, e.ends)))
      - p.covered - coalesce(t.stretches, '{}')
      -- Found once, not for each symbol.
      - coalesce((select a.covered from promise a where a.symbol = '*'), '{}')
      - coalesce((select a.stretches from told a where a.symbol = '*'), '{}') as stretches
    from promise p
    left join told t on t.symbol = p.symbol
    cross join lateral (select case when p.goes_on then p.ends else greatest(p.at_least, p.ends) end as ends) e
    union all
    -- Not even what was covered, or told before, settles a doubt.
    select d.symbol, range_agg(tstzrange(d.ts, d.ts + interval '1 minute')) from tickstock.doubts d group by d.symbol
  )
  select m.symbol, lower(r.stretch), upper(r.stretch)
  from (select m.symbol, range_agg(m.stretches) as stretches from missing m group by m.symbol) m
  -- Bars that have been dropped are not owed: what was told of them is forgotten, and new ones are refused.
  cross join lateral unnest(m.stretches - tstzmultirange(tstzrange('-infinity', tickstock.bars_since()))) r (stretch);
end;
comment on function tickstock.owed(timestamptz) is
  'What was promised and neither covered live nor told by another source, and what is in doubt, per symbol (* stands for all symbols); until: the feed''s time now, for subscriptions that were lost and have not come back.';

create or replace view feed_gaps as
select o.symbol, o.starts, o.ends, (extract(epoch from o.ends - o.starts) / 60)::integer as minutes,
  (select max(b.asked_at) from backfills b
   where b.symbol = o.symbol and not b.settled and tstzrange(b.starts, b.ends) && tstzrange(o.starts, o.ends)) as asked_at,
  (select s.reason from feed_stretches s
   where s.closed_at is not null and not s.intended and s.latest between o.starts and o.ends + tickstock.late()
     and (s.symbols is null or o.symbol = any (s.symbols))
   order by s.id desc limit 1) as reason
from tickstock.owed(feed_clock()) o;
comment on view feed_gaps is
  'What the feed still owes: stretches that a subscription promised, and that were neither covered live nor delivered by another source. symbol *: all symbols. asked_at: when another source was last asked for it, while it could still change. tickstock backfill fills them.';

comment on column feed_gaps.symbol is 'Ticker; * stands for all symbols.';
comment on column feed_gaps.starts is 'First minute that is owed, UTC.';
comment on column feed_gaps.ends is 'End (exclusive), UTC.';
comment on column feed_gaps.minutes is 'How many minutes that is, closed hours included.';
comment on column feed_gaps.asked_at is 'When another source was last asked for it, while it could still change; null: never.';
comment on column feed_gaps.reason is 'Why the connection was lost; null: owed at the beginning or end of a subscription.';

create or replace function tickstock.settle(told_symbol text, starts timestamptz, ends timestamptz, final_before timestamptz,
                                            source text, bars bigint) returns void
language plpgsql
as $$
begin
  -- What was asked in vain so far is now told, or will be asked again by these bounds.
  delete from public.backfills b
  where b.symbol = told_symbol and not b.settled and tstzrange(b.starts, b.ends) && tstzrange(settle.starts, settle.ends);
  delete from tickstock.doubts d
  -- REST tells of all symbols one by one, and not again those that it has told before.
  where (d.symbol = told_symbol or (told_symbol = '*' and source <> 'rest')) and d.ts >= settle.starts and d.ts < least(settle.ends, final_before);
  insert into public.backfills as b (symbol, starts, ends, source, bars, settled)
  select told_symbol, s.starts, s.ends, settle.source, settle.bars, s.settled
  from (values (settle.starts, least(settle.ends, final_before), true),
               (greatest(settle.starts, final_before), settle.ends, false)) s (starts, ends, settled)
  where s.starts < s.ends
  on conflict on constraint backfills_pkey do update
  set source = excluded.source, bars = excluded.bars, settled = b.settled or excluded.settled, asked_at = excluded.asked_at;
end $$;
comment on function tickstock.settle(text, timestamptz, timestamptz, timestamptz, text, bigint) is
  'A source has told all bars of a symbol (* for all symbols) from starts up to ends; those before final_before for good.';

create or replace function tickstock.complete_minute(stretch bigint, ts timestamptz, bars integer) returns void
language plpgsql
as $$
begin
  insert into public.minutes_complete as m (ts, stretch, bars)
  values (complete_minute.ts, complete_minute.stretch, complete_minute.bars)
  on conflict on constraint minutes_complete_pkey do nothing;
  perform pg_notify('tickstock_minutes', json_build_object(
    'minute', to_char(complete_minute.ts at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'bars', complete_minute.bars,
    'lag', round(extract(epoch from clock_timestamp() - complete_minute.ts) - 60, 3), 'stretch', complete_minute.stretch)::text);
end $$;
comment on function tickstock.complete_minute(bigint, timestamptz, integer) is
  'The feed''s clock has passed a minute: writes it down, and notifies on tickstock_minutes.';

create or replace function tickstock.requests(since timestamptz, until timestamptz)
returns table (starts timestamptz, ends timestamptz)
language sql stable
begin atomic
  -- 60 days, of sixteen hours: an answer holds 50,000 bars.
  select p.starts, least(p.starts + interval '1440 hours', requests.until)
  from generate_series(requests.since, requests.until - interval '1 minute', interval '1440 hours') p (starts)
  order by 1 desc;
end;
comment on function tickstock.requests(timestamptz, timestamptz) is
  'The minutes from since up to, not including, until in pieces that one request each answers in one page, newest first.';

create or replace function tickstock.askable(until timestamptz)
returns table (symbol text, starts timestamptz, ends timestamptz)
language sql stable
begin atomic
  with gaps as (
    -- Those that begin on one day cost one request together; an older one must not hold up today's.
    select o.symbol, min(o.starts) as starts, max(o.ends) as ends
    from (select o.symbol, o.starts, least(o.ends, date_trunc('minute', askable.until)) as ends from tickstock.owed(askable.until) o) o
    where o.starts < o.ends
      -- By now it is final, or it is new, or an outage has gone on for long.
      and (o.ends + tickstock.late() <= askable.until
           or not exists (select from public.backfills b
                          where b.symbol = o.symbol and not b.settled
                            and tstzrange(b.starts, b.ends) && tstzrange(o.starts, o.ends) and b.ends > o.ends - tickstock.late()))
    group by o.symbol, (o.starts at time zone 'America/New_York')::date
  )
  -- A long one in pieces: its newest part comes first, and what the plan refuses of it costs nothing else.
  select g.symbol, p.starts, p.ends from gaps g cross join lateral tickstock.requests(g.starts, g.ends) p
  order by 3 desc, 1;
end;
comment on function tickstock.askable(timestamptz) is
  'What another source should be asked for now, newest first: for each symbol (* stands for all symbols) what is owed, unless it was asked for a moment ago; gaps that begin on the same day as one, a long one in pieces. until: the time of that source''s clock.';

create or replace function tickstock.forget_told_by_all() returns void
language sql
begin atomic
  delete from public.backfills b using public.backfills e
  where e.symbol = '*' and e.settled and b.symbol <> '*' and b.starts >= e.starts and b.ends <= e.ends;
end;
comment on function tickstock.forget_told_by_all() is
  'What was told of all symbols need not be remembered for each of them.';

create or replace function tickstock.join_told(before timestamptz, at_least integer) returns void
language plpgsql
as $$
begin
  if not exists (select from public.backfills b
                 where b.settled and b.symbol <> '*' and b.ends <= before and b.source <> 'rest and feed' offset at_least) then
    return;
  end if;
  with old as (
    delete from public.backfills b where b.settled and b.symbol <> '*' and b.ends <= before returning b.*
  ), told as (
    select o.symbol, range_agg(tstzrange(o.starts, o.ends)) as stretches from old o group by o.symbol
  ), covered as (
    -- Of one that is alive, what is covered also when it has ended.
    select r.symbol, range_agg(r.covered * tstzmultirange(tstzrange(null, least(before, r.latest - tickstock.late())))) as stretches
    from tickstock.live_runs() r group by r.symbol
  ), joined as (
    select t.symbol, lower(j.stretch) as starts, upper(j.stretch) as ends
    from told t left join covered c on c.symbol = t.symbol
    cross join lateral unnest(t.stretches + coalesce(c.stretches, '{}')) j (stretch)
  )
  insert into public.backfills as b (symbol, starts, ends, source, asked_at, bars)
  select j.symbol, j.starts, j.ends, 'rest and feed', max(o.asked_at), sum(o.bars)
  -- What was covered live alone stays with its stretches.
  from joined j join old o on o.symbol = j.symbol and o.starts >= j.starts and o.ends <= j.ends
  group by 1, 2, 3
  on conflict on constraint backfills_pkey do update set source = excluded.source, settled = true;
end $$;
comment on function tickstock.join_told(timestamptz, integer) is
  'What was told before that time of single symbols becomes one stretch with what the live feed covered in between, if so many stretches have not been joined yet. The same minutes stay told and owed; otherwise each lost connection would leave a row for each symbol, and who asks what is owed reads them all.';

create or replace function tickstock.symbols_since(since timestamptz) returns setof text
language sql stable
begin atomic
  select distinct b.symbol from public.ohlcv_1min b where b.ts >= symbols_since.since;
end;
comment on function tickstock.symbols_since(timestamptz) is 'Symbols of which a bar is stored from this moment on.';
