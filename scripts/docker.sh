#!/bin/sh
# Makes a Docker engine answer: uses the one that is there, otherwise installs
# Debian's docker.io and starts dockerd. Exit 0: an engine answers. Exit 1: none can
# be had, with the reason. `scripts/docker.sh --quiet` prints only problems.
set -eu
quiet=${1:-}
say() { [ "$quiet" = --quiet ] || echo "docker: $*"; }

# The client may be absent or of another version, so ask the socket itself.
socket=${DOCKER_SOCKET:-/var/run/docker.sock}
answers() {
    if command -v docker >/dev/null 2>&1; then
        timeout 10 docker -H "unix://$socket" version >/dev/null 2>&1
    else
        [ -S "$socket" ] && command -v curl >/dev/null 2>&1 &&
            curl -sf -m 10 --unix-socket "$socket" http://localhost/_ping >/dev/null
    fi
}

if answers; then
    say "an engine answers on $socket"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "docker: no engine answers on $socket, and only root can start one" >&2
    exit 1
fi
if ! command -v dockerd >/dev/null 2>&1; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "docker: no dockerd and no apt-get to install it with" >&2
        exit 1
    }
    say "installing docker.io"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io >/dev/null || {
        echo "docker: installing docker.io failed" >&2
        exit 1
    }
fi
if ! answers; then
    log=${TMPDIR:-/tmp}/tepui-dockerd.log
    say "starting dockerd (log: $log)"
    rm -f /var/run/docker.pid
    # A session of its own, so that Ctrl-C on the caller does not end the engine.
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
    tries=0
    until answers; do
        tries=$((tries + 1))
        if [ "$tries" -ge 60 ]; then
            echo "docker: dockerd does not answer; its last words:" >&2
            tail -n 3 "$log" >&2
            exit 1
        fi
        sleep 0.5
    done
fi
say "an engine answers on $socket"
