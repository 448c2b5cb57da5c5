#!/bin/sh
# As much of the official image's start as docker-compose.yml relies on.
set -eu
export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data

if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086  # several arguments
    initdb --username="$POSTGRES_USER" --encoding=UTF8 --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl start -w -o "-c listen_addresses=''"
    database=${POSTGRES_DB:-$POSTGRES_USER}
    [ "$database" = postgres ] || createdb --username="$POSTGRES_USER" "$database"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        psql --username="$POSTGRES_USER" --dbname="$database" --no-psqlrc --set=ON_ERROR_STOP=1 --file="$file"
    done
    pg_ctl stop -w
fi
exec "$@"
