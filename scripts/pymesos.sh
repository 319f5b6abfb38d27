#!/bin/sh
# Makes a Python environment with pymesos (and kazoo, by which it speaks to ZooKeeper) as it is on
# PyPI, in the folder named, and prints its interpreter. Does nothing when it is there already.
set -eu
folder=$1
python=$folder/bin/python
if ! "$python" -c 'import pymesos, kazoo' >/dev/null 2>&1; then
    rm -rf "$folder"
    python3 -m venv "$folder" >&2 || {
        apt-get install -y -qq python3-venv >&2 && python3 -m venv "$folder" >&2
    }
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps pymesos kazoo six addict setuptools wheel >&2
    # The C half of http-parser does not build with newer Pythons; the package then uses
    # its Python half, which lies in the source archive.
    if ! "$folder/bin/pip" install --quiet --disable-pip-version-check http-parser >/dev/null 2>&1; then
        "$folder/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
            --no-build-isolation --dest "$folder/source" http-parser >&2
        tar -xzf "$folder"/source/http?parser-*.tar.gz -C "$folder/source"
        cp -r "$folder"/source/http?parser-*/http_parser "$folder"/lib/python3*/site-packages/
    fi
    "$python" -c 'import pymesos, kazoo' >&2
fi
echo "$python"
