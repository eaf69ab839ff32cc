# Sourced: an X server, without which Wine has no display adapter to list.
export DISPLAY=:77
Xvfb "$DISPLAY" -screen 0 640x480x24 -nolisten tcp >/tmp/xvfb.log 2>&1 &
waited=0
until [ -S /tmp/.X11-unix/X77 ]; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
        echo "Xvfb did not start: $(cat /tmp/xvfb.log)" >&2
        exit 3
    fi
    sleep 0.1
done
