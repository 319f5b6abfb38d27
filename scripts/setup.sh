#!/bin/sh
# Installs what a build needs and the machine lacks: a C compiler and linker, the
# RocksDB library with its headers, libclang (the bindings are generated from the real
# header), and for the tests network tools and a busybox. Prints what it does; does nothing on a machine that has all of it.
set -eu

command -v cargo >/dev/null 2>&1 || {
    echo "setup: cargo is missing: install a Rust toolchain (1.95 or newer), then run this again" >&2
    exit 1
}

missing=""
command -v cc >/dev/null 2>&1 || missing="$missing build-essential"
[ -e /usr/include/rocksdb/c.h ] || missing="$missing librocksdb-dev"
ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || missing="$missing libclang-dev"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v iptables >/dev/null 2>&1 || missing="$missing iptables"
[ -x /bin/busybox ] || missing="$missing busybox-static"
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install the equivalents of:$missing" >&2
    exit 1
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "setup: not root and no sudo; please install:$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "setup: installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
