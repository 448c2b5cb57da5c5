#!/bin/sh
# Makes the stack what a folder of docker/backup.sh says; what its databases hold now is replaced. The secrets are those
# of .env, which must be the .env of that time for what Superset and Airflow store encrypted.
set -eu
compose=${COMPOSE:-docker compose}
from=${1:-}

if [ ! -f "$from/status.json" ]; then
    echo "error: '$from' is no backup" >&2
    echo "  fix: make restore FROM=backups/..." >&2
    exit 1
fi

load() { # service, database, owner
    $compose exec -T "$1" psql --username=postgres --quiet --set=ON_ERROR_STOP=1 \
        --command="drop database if exists $2 with (force)" --command="create database $2 owner $3"
    $compose exec -T "$1" pg_restore --username=postgres --exit-on-error --dbname="$2" <"$from/$2.dump"
}

$compose --profile "*" stop
$compose up --detach --wait postgres metadata-postgres clickhouse
load postgres energy_iot postgres
load metadata-postgres airflow airflow
load metadata-postgres superset superset
$compose run --rm -T --no-deps --entrypoint tar pipeline \
    --extract --gzip --directory=/var/lib/energy-iot <"$from/home.tar.gz"
$compose run --rm -T init-db # rights on the database itself are not in a dump
$compose run --rm -T pipeline sync --full-refresh
$compose run --rm -T pipeline status --json |
    cat "$from/status.json" - |
    $compose run --rm -T --no-deps --entrypoint python pipeline docker/pipeline/same_rows.py
$compose up --detach --wait
