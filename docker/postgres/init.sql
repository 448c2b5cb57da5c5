-- Runs once, on an empty volume: the pipeline's schemas and roles, and who logs in. Tables and rights are made by
-- `energy-iot init-db` (service init-db), whose migrations are their home.

\set ON_ERROR_STOP on
\set pipeline_password `cat /run/secrets/postgres_pipeline_password`
\set dashboards_password `cat /run/secrets/postgres_dashboards_password`
\set monitoring_password `cat /run/secrets/postgres_monitoring_password`

set log_statement = 'none'; -- no password in the log, whatever the server is set to
set log_min_error_statement = 'panic';

create role energy_loader nologin;
create role energy_transformer nologin;
create role energy_reader nologin;

create role energy_pipeline login password :'pipeline_password' in role energy_loader, energy_transformer;
create role energy_dashboards login password :'dashboards_password' in role energy_reader;
create role energy_monitoring login password :'monitoring_password' in role energy_reader, pg_monitor;

create schema raw_data;
create schema staging;
create schema intermediate;
create schema marts;
create schema ml;
create schema quality;
