#!/bin/sh
# Makes a ZooKeeper server and its old client ready for tests: Debian's `zookeeper` and the
# unmodified `kazoo` from PyPI. Prints the Python that has kazoo. Servers are started by the
# tests, each on a port of its own. `scripts/zookeeper.sh --classpath` prints what java needs.
set -eu
folder=${TEPUI_KAZOO:-${XDG_CACHE_HOME:-$HOME/.cache}/tepui/kazoo}
jar=/usr/share/java/zookeeper.jar

need() {
    echo "zookeeper: $*" >&2
    exit 1
}
if [ ! -e "$jar" ] || ! command -v java >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || need "no $jar, and only root can install Debian's zookeeper"
    command -v apt-get >/dev/null 2>&1 || need "no $jar and no apt-get to install it with"
    apt-get update -qq >&2
    # The library alone: the package of the server would only add a start script and a user.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        zookeeper default-jre-headless >&2 || need "installing Debian's zookeeper failed"
fi
if [ "${1:-}" = --classpath ]; then
    # Debian's own list of jars, as its start script has it.
    classpath=/etc/zookeeper/conf
    for it in /usr/share/java/*.jar; do
        classpath="$classpath:$it"
    done
    echo "$classpath"
    exit 0
fi
if ! "$folder/bin/python" -c 'import kazoo' >/dev/null 2>&1; then
    mkdir -p "$folder"
    python3 -m venv "$folder" >&2 || {
        apt-get install -y -qq python3-venv >&2 && python3 -m venv "$folder" >&2
    }
    "$folder/bin/pip" install --quiet --disable-pip-version-check kazoo >&2
    "$folder/bin/python" -c 'import kazoo' >&2
fi
echo "$folder/bin/python"
