-- Schemas and the tables that Python writes; dbt makes its own in staging, intermediate and marts.
-- Timestamps are UTC without a zone, energies kWh, powers kW.

create schema if not exists raw_data;
create schema if not exists staging;
create schema if not exists intermediate;
create schema if not exists marts;
create schema if not exists ml;
create schema if not exists quality;

-- One row for each content ever loaded; the hash makes loading the same bytes again a no-op.
create table raw_data.ingested_files (
    file_id bigint generated always as identity primary key,
    sha256 text not null unique,
    file_name text not null,
    source_name text not null,
    interval_minutes integer not null check (interval_minutes > 0),
    size_bytes bigint not null,
    lines_read bigint not null,
    readings_loaded bigint not null,
    readings_without_consumption bigint not null,
    readings_rejected bigint not null,
    first_timestamp timestamp,
    last_timestamp timestamp,
    run_id text not null,
    ingested_at timestamp not null default (now() at time zone 'utc')
);

-- Append-only and lossless: what the source leaves out is null. No foreign key on file_id: it would cost a
-- look-up for each of millions of rows in COPY; a dbt relationship test guards it instead.
create table raw_data.meter_readings (
    id bigint generated always as identity primary key,
    meter_id text not null,
    timestamp timestamp not null,
    electricity_consumed numeric,
    temperature double precision,
    humidity double precision,
    wind_speed double precision,
    avg_past_consumption double precision,
    voltage double precision,
    sub_metering_1 double precision,
    sub_metering_2 double precision,
    sub_metering_3 double precision,
    anomaly_label text,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

create table raw_data.rejected_readings (
    id bigint generated always as identity primary key,
    file_id bigint not null references raw_data.ingested_files (file_id),
    source_file text not null,
    line_number bigint not null,
    raw_text text not null,
    reason text not null,
    rejected_at timestamp not null default (now() at time zone 'utc')
);

create table ml.model_versions (
    model_version integer primary key,
    file_name text not null,
    sha256 text not null,
    trained_at timestamp not null,
    training_rows bigint not null,
    score_threshold double precision not null,
    card jsonb not null
);

create table ml.reading_scores (
    reading_id bigint not null,
    anomaly_score double precision not null,
    is_anomaly boolean not null,
    model_version integer not null,
    scored_at timestamp not null
);

create table quality.pipeline_runs (
    run_id text primary key,
    status text not null check (status in ('running', 'succeeded', 'failed')),
    started_at timestamp not null default (now() at time zone 'utc'),
    ended_at timestamp,
    options jsonb not null,
    state_fingerprint text,
    package_version text not null,
    error text
);

create table quality.step_runs (
    id bigint generated always as identity primary key,
    run_id text not null references quality.pipeline_runs (run_id),
    step text not null,
    status text not null check (status in ('running', 'succeeded', 'skipped', 'failed')),
    started_at timestamp not null default (now() at time zone 'utc'),
    ended_at timestamp,
    rows_in bigint,
    rows_out bigint,
    warnings jsonb not null default '[]',
    details jsonb not null default '{}',
    error text
);

create index step_runs_run_id on quality.step_runs (run_id);

create table quality.validation_results (
    id bigint generated always as identity primary key,
    run_id text not null references quality.pipeline_runs (run_id),
    suite text not null,
    expectation text not null,
    column_name text,
    severity text not null,
    success boolean not null,
    checked_rows bigint,
    unexpected_rows bigint,
    unexpected_share double precision,
    examples jsonb not null default '[]',
    parameters jsonb not null default '{}',
    validated_at timestamp not null default (now() at time zone 'utc')
);

create index validation_results_run_id on quality.validation_results (run_id);
