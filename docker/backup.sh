#!/bin/sh
# Writes a folder from which docker/restore.sh makes the stack again: the databases as pg_dump writes them, models and
# reports, and how many rows there were. ClickHouse holds nothing that PostgreSQL does not. Secrets are not in it: keep
# .env apart.
set -eu
umask 077
compose=${COMPOSE:-docker compose}
to=${1:-backups/$(date -u +%Y-%m-%dT%H%M%SZ)}

if [ -e "$to" ]; then
    echo "error: $to is there already" >&2
    echo "  fix: name another folder: make backup TO=..." >&2
    exit 1
fi
unfinished=$to.unfinished
mkdir -p "$unfinished"

dump() { # service, database
    $compose exec -T "$1" pg_dump --username=postgres --format=custom "$2" >"$unfinished/$2.dump"
}

$compose run --rm -T pipeline status --json >"$unfinished/status.json"
dump postgres energy_iot
dump metadata-postgres airflow
dump metadata-postgres superset
# after the tables, so that no model is named that is not there; Airflow's folder holds its password and logs
$compose run --rm -T --no-deps --entrypoint tar pipeline \
    --create --gzip --directory=/var/lib/energy-iot --exclude=./airflow --exclude=./demo . >"$unfinished/home.tar.gz"
mv "$unfinished" "$to"
echo "$to:"
du -h "$to"/*
