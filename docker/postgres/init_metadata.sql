-- Runs once, on an empty volume: a database and a user each for what Airflow and Superset remember of themselves.

\set ON_ERROR_STOP on
\set airflow_password `cat /run/secrets/airflow_postgres_password`
\set superset_password `cat /run/secrets/superset_postgres_password`

set log_statement = 'none'; -- no password in the log, whatever the server is set to
set log_min_error_statement = 'panic';

create role airflow login password :'airflow_password';
create role superset login password :'superset_password';
create database airflow owner airflow;
create database superset owner superset;
