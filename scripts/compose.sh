#!/bin/sh
# Makes `docker-compose` answer, installing Debian's when there is none.
set -eu
command -v docker-compose >/dev/null 2>&1 && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "compose: please install docker-compose" >&2
    exit 1
fi
echo "compose: installing docker-compose"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose >/dev/null
