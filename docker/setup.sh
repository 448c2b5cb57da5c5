#!/bin/sh
# Makes .env of .env.example, or completes one that is there: random values where a secret of the containers is blank or
# missing. A value that is set stays as it is. No value is printed, or given to a program on its command line.
set -eu
mkdir -p data/landing data/raw # before what follows: containers read them as another user
umask 077

is_secret() { # of the containers: what native commands read is for people to fill in
    case $1 in
    ENERGY_IOT_*) return 1 ;;
    *_PASSWORD | *_SECRET | *_KEY) return 0 ;;
    *) return 1 ;;
    esac
}

new_secret() {
    case $1 in
    *_FERNET_KEY) head -c 32 /dev/urandom | base64 | tr '+/' '-_' ;; # the form that Fernet asks for
    *) od -An -N 24 -t x1 /dev/urandom | tr -d ' \n' ;;              # needs no quoting anywhere
    esac
}

completed() { # a line of .env or .env.example, its secret filled in
    name=${1%%=*}
    if [ "$1" = "$name=" ] && is_secret "$name"; then
        made=$((made + 1))
        printf '%s=%s\n' "$name" "$(new_secret "$name")"
    else
        printf '%s\n' "$1"
    fi
}

made=0
if [ -f .env ]; then source=.env; else source=.env.example; fi
new=$(mktemp .env.XXXXXX)
trap 'rm -f "$new"' EXIT
{
    while IFS= read -r line || [ -n "$line" ]; do
        completed "$line"
    done <"$source"
    if [ "$source" = .env ]; then # written before these were thought of
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in
            [A-Z]*=*) grep -q "^${line%%=*}=" .env || completed "$line" ;;
            esac
        done <.env.example
    fi
} >"$new"
mv "$new" .env
chmod 600 .env
echo ".env: $made secrets made, others left as they were; only you can read it"
