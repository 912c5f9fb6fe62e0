-- The ledger of migrations, made before the first of them. See tickstock/db/migrate.py.
create schema if not exists tickstock;
comment on schema tickstock is
  'The machinery behind the public relations: materialized candles, queues. Not an interface: read the views in schema public.';

create table if not exists tickstock.migrations (
  name text primary key,
  sha256 text not null,
  engine text not null check (engine in ('community', 'apache', 'postgres')),
  version text not null,
  applied_at timestamptz not null default now()
);
comment on table tickstock.migrations is 'Which files of sql/ this database has been given. "objects" stands for all rerunnable ones.';
comment on column tickstock.migrations.name is 'File name in sql/migrations, or "objects".';
comment on column tickstock.migrations.sha256 is 'Hash of what was run.';
comment on column tickstock.migrations.engine is 'The engine at the first migration: it decides which files fit this database, for good.';
comment on column tickstock.migrations.version is 'tickstock''s version at that time.';
comment on column tickstock.migrations.applied_at is 'When.';
