-- The log of what changed in raw_data, and how far each derived table has followed it; scores by meter and instant;
-- what a retried reject needs of its file; models that come into force.

-- One row for each file loaded or taken out again, in order.
create table raw_data.changes (
    change_id bigint generated always as identity primary key,
    kind text not null check (kind in ('load', 'forget')),
    file_id bigint,
    file_name text not null,
    sha256 text not null,
    run_id text,
    changed_at timestamp not null default (now() at time zone 'utc')
);

-- The days of meters (UTC) that a change touched. No foreign key: it would cost a look-up for each of many rows.
-- Days that every derived table has followed are removed.
create table raw_data.changed_days (
    change_id bigint not null,
    meter_id text not null,
    reading_date date not null
);

create index changed_days_change_id on raw_data.changed_days (change_id);

-- What is loaded already counts as changed: derived tables are built whole after an upgrade anyway.
insert into raw_data.changes (kind, file_id, file_name, sha256, run_id, changed_at)
select 'load', file_id, file_name, sha256, run_id, ingested_at
from raw_data.ingested_files
order by file_id;

-- One row for each derived thing (a dbt model, the scores, a gate, a published table): the last change that is in it, and
-- a hash of all else it follows from. Another hash, or no row, means: build it whole.
create table quality.derived_states (
    name text primary key,
    change_id bigint not null,
    fingerprint text not null,
    row_count bigint,
    updated_at timestamp not null default (now() at time zone 'utc')
);

-- Finds the readings of a day: files come in the order of days. A thousandth of the size of a tree, and as cheap to keep.
create index meter_readings_timestamp on raw_data.meter_readings using brin (timestamp)
with (pages_per_range = 32, autosummarize = on);

create index meter_readings_file_id on raw_data.meter_readings using brin (file_id)
with (pages_per_range = 32, autosummarize = on);

-- How a file was read: what a corrected line of it is read with. Null for files that were loaded before.
alter table raw_data.ingested_files add column layout jsonb;

-- A reject whose corrected line was loaded names the file that brought it.
alter table raw_data.rejected_readings add column resolved_by_file_id bigint;

-- Taking a file out asks whether rejects name it.
create index rejected_readings_file_id on raw_data.rejected_readings (file_id);

-- Scores of more than one model version may be here; the marts show those of the version in force.
drop table ml.reading_scores;

create table ml.reading_scores (
    reading_id bigint not null,
    meter_id text not null,
    reading_timestamp timestamp not null,
    anomaly_score double precision not null,
    is_anomaly boolean not null,
    model_version integer not null,
    scored_at timestamp not null
);

create index reading_scores_meter_day on ml.reading_scores (meter_id, cast(reading_timestamp as date));

-- The version in force is the one that came into force last; null: never was.
alter table ml.model_versions add column in_force_since timestamp;

alter table quality.pipeline_runs
drop constraint pipeline_runs_status_check,
add constraint pipeline_runs_status_check check (status in ('running', 'succeeded', 'failed', 'interrupted'));

alter table quality.step_runs
drop constraint step_runs_status_check,
add constraint step_runs_status_check check (status in ('running', 'succeeded', 'skipped', 'failed', 'interrupted'));

alter table quality.step_runs add column attempts integer not null default 1;

alter table quality.pipeline_runs add column model_version integer;

-- Who took the run lock last; true only while that server process holds it (storage/run_lock.py).
create table quality.run_lock (
    only_row boolean primary key default true check (only_row),
    backend_pid integer not null,
    command text not null,
    process_id integer not null,
    machine text not null,
    since timestamp not null default (now() at time zone 'utc')
);
