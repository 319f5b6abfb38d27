#!/bin/sh
# Starts a cluster on 127.0.0.1 with a first workload, in Docker containers and as
# processes when an engine answers or can be started, as processes alone otherwise.
set -eu
cd "$(dirname "$0")/.."
image=""
if scripts/docker.sh && scripts/test-image.sh; then
    image="--demo-image=tepui-test:1"
else
    echo "==> no Docker engine: tasks run as processes"
fi
# shellcheck disable=SC2086
exec target/release/tepui local --demo $image
