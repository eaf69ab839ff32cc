#!/bin/sh
# Inside the root: the program that runs session plans, beside the DLLs that it loads.
set -eu
x86_64-w64-mingw32-gcc -std=gnu17 -O2 -Wall -Wextra -Wno-unused-parameter -Werror \
    -I/opt/header/usr/include/onnxruntime -o /opt/runtime/session.exe /src/session.c -lversion
