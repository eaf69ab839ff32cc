#!/bin/sh
# Inside the root: a command line of Windows, in the folder $1 below C:.
set -eu
cd "$WINEPREFIX/drive_c/$1"
shift
. /wine/inside/display.sh
# A desktop first: else it would be a child of the first process that wants one.
wine explorer.exe /desktop=embedmill,640x480 >/dev/null 2>&1 </dev/null &
code=0
wine "$@" </dev/null || code=$?
wineserver --kill || true
exit "$code"
