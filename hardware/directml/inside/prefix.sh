#!/bin/sh
# Inside the root: Wine's C: drive. Made after the bridge, because it holds copies of Wine's DLLs.
set -eu
rm -rf "$WINEPREFIX"
. /src/inside/display.sh
wineboot --init
wineserver --wait
# 740 MB of those copies become links to what they are copies of.
for copy in "$WINEPREFIX"/drive_c/windows/system32/*; do
    own="/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/${copy##*/}"
    if [ -f "$copy" ] && [ -f "$own" ] && cmp --quiet "$copy" "$own"; then
        ln --force "$own" "$copy"
    fi
done
