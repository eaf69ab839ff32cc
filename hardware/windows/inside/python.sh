#!/bin/sh
# Inside the root: the programs of the Windows Python that was laid out at /opt/windows, then all of it as C:\Python.
set -eu
cc=x86_64-w64-mingw32-gcc
cd /opt/windows/build
x86_64-w64-mingw32-dlltool -d python.def -l libpython.a
x86_64-w64-mingw32-windres -O coff -o python.res python.rc
$cc -municode -O2 -s -o ../python.exe python.c python.res -L. -lpython
$cc -shared -nostdlib -e DllMainCRTStartup -s -o ../python3.dll empty.c python3.def
$cc -municode -O2 -s -o venvlauncher.exe venvlauncher.c
mkdir -p ../Lib/venv/scripts/nt
cp venvlauncher.exe ../Lib/venv/scripts/nt/venvlauncher.exe
cp venvlauncher.exe ../Lib/venv/scripts/nt/venvwlauncher.exe
# A C runtime with the complex functions that NumPy uses, before Wine's own, which becomes ucrtwine.dll.
$cc -O2 -w -fno-builtin -static-libgcc -shared -nostartfiles -e DllMainCRTStartup -s -o ucrtbase.dll complex.c ucrtbase.def
winebuild --builtin ucrtbase.dll
wine=/usr/lib/x86_64-linux-gnu/wine/x86_64-windows
system=$WINEPREFIX/drive_c/windows/system32
[ -f "$wine/ucrtwine.dll" ] || cp "$wine/ucrtbase.dll" "$wine/ucrtwine.dll"
rm -f "$wine/ucrtbase.dll" "$system/ucrtbase.dll" "$system/ucrtwine.dll"
cp ucrtbase.dll "$wine/ucrtbase.dll"
ln "$wine/ucrtbase.dll" "$wine/ucrtwine.dll" "$system/"
cd /
rm -rf "$WINEPREFIX/drive_c/Python"
cp -r /opt/windows "$WINEPREFIX/drive_c/Python"
rm -r "$WINEPREFIX/drive_c/Python/build"
