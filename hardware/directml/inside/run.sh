#!/bin/sh
# Inside the root: session.exe over the folders /jobs/0, /jobs/1, ... of which there are $1.
set -eu
count=$1
set --
number=0
while [ "$number" -lt "$count" ]; do
    set -- "$@" "Z:\\jobs\\$number"
    number=$((number + 1))
done
. /src/inside/display.sh
code=0
wine /opt/runtime/session.exe "$@" </dev/null || code=$?
wineserver --kill || true
exit "$code"
