#!/bin/sh
# Inside the root, with network: what builds and runs the rest, from the suite's signed index.
set -eu
apt-get --quiet --quiet update
apt-get --quiet --quiet --yes --no-install-recommends install \
    wine wine64 wine64-tools libwine-dev gcc g++ libc6-dev gcc-mingw-w64-x86-64-win32 \
    mesa-vulkan-drivers libvulkan1 libvulkan-dev xvfb libpython3.13-stdlib
# The C API's header, without the library and all that it needs.
cd /tmp
apt-get --quiet --quiet download libonnxruntime-dev
dpkg-deb --extract libonnxruntime-dev_*.deb /opt/header
apt-get clean
