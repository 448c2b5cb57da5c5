-- The registry of meters and of the network, what flows through the network, outages, and what inspections found.

-- What a file holds. Files other than readings load no readings: what they load is counted by itself; those of
-- network readings have an interval too.
alter table raw_data.ingested_files
add column content text not null default 'readings'
check (content in ('readings', 'meters', 'network_nodes', 'network_readings', 'outages', 'inspections')),
add column registry_rows_loaded bigint not null default 0,
alter column interval_minutes drop not null;

-- What a change was of, and for meters and nodes the first day whose network is another one by it: null if none is.
alter table raw_data.changes
add column content text not null default 'readings',
add column affects_from date;

-- Append-only like readings: staging takes the latest received of each meter and first day of validity.
create table raw_data.meters (
    id bigint generated always as identity primary key,
    meter_id text not null,
    service_point_id text,
    transformer_id text,
    customer_class text,
    tariff_per_kwh numeric,
    currency text,
    contracted_power_kw double precision,
    is_prepaid boolean,
    latitude double precision,
    longitude double precision,
    valid_from date not null,
    valid_to date,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

-- load_loss_kw: losses at rated load of windings and of the lines below; they go with the square of the load.
create table raw_data.network_nodes (
    id bigint generated always as identity primary key,
    node_id text not null,
    node_type text not null,
    parent_id text,
    rated_kva double precision,
    no_load_loss_kw double precision,
    load_loss_kw double precision,
    latitude double precision,
    longitude double precision,
    valid_from date not null,
    valid_to date,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

create table raw_data.network_readings (
    id bigint generated always as identity primary key,
    node_id text not null,
    timestamp timestamp not null,
    energy_in_kwh numeric,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

create index network_readings_timestamp on raw_data.network_readings using brin (timestamp)
with (pages_per_range = 32, autosummarize = on);

create table raw_data.outages (
    id bigint generated always as identity primary key,
    node_id text not null,
    start_time timestamp not null,
    end_time timestamp,
    cause text,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

create table raw_data.inspections (
    id bigint generated always as identity primary key,
    meter_id text not null,
    inspected_on date not null,
    found_theft boolean not null,
    kind text,
    recovered_kwh double precision,
    ingested_at timestamp not null default (now() at time zone 'utc'),
    source_file text not null,
    file_id bigint not null
);

-- The days of network nodes (UTC) that a change touched, as raw_data.changed_days has those of meters.
create table raw_data.changed_node_days (
    change_id bigint not null,
    node_id text not null,
    reading_date date not null
);

create index changed_node_days_change_id on raw_data.changed_node_days (change_id);

-- What a file brought is taken out by the file's number.
create index network_readings_file_id on raw_data.network_readings using brin (file_id)
with (pages_per_range = 32, autosummarize = on);
