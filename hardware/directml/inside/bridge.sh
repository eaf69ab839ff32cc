#!/bin/sh
# Inside the root: a d3d12.dll for Wine that is vkd3d 2.x. It takes the place of Wine's own, whose vkd3d knows no DXIL.
set -eu
ldconfig
cp -r /src/bridge /tmp/bridge
cd /tmp/bridge
gcc -O2 -Wall -fPIC -I/usr/local/include/vkd3d -c linux.c
winegcc -O2 -Wall -m64 -fPIC -c windows.c
winegcc -m64 -shared -o d3d12.dll.so d3d12.spec windows.o linux.o -L/usr/local/lib -l:libvkd3d.so.1 -lkernel32
winebuild -m64 --dll --fake-module -E d3d12.spec -o d3d12.dll
wine=/usr/lib/x86_64-linux-gnu/wine
cp d3d12.dll "$wine/x86_64-windows/"
cp d3d12.dll.so "$wine/x86_64-unix/"
