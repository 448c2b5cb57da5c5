#!/bin/sh
# Prints where the pages of the stack are. Passwords stay in .env.
set -eu

value() { # of a variable: what .env says, or the default of docker-compose.yml
    found=$(sed -n "s/^$1=//p" .env | tail -n 1)
    echo "${found:-$2}"
}

page() {
    printf '  %-13s http://%s:%s   %s\n' "$1" "$host" "$(value "$2" "$3")" "$4"
}

host=$(value BIND_ADDRESS 127.0.0.1)
page Airflow AIRFLOW_PORT 28080 'user admin, AIRFLOW_ADMIN_PASSWORD in .env'
page Superset SUPERSET_PORT 28088 'users admin and analyst, SUPERSET_..._PASSWORD in .env'
page Grafana GRAFANA_PORT 23000 'user admin, GRAFANA_ADMIN_PASSWORD in .env'
page Prometheus PROMETHEUS_PORT 29090 ''
page Alertmanager ALERTMANAGER_PORT 29093 ''
echo 'next: make demo-docker, or put files into data/raw and: make pipeline'
