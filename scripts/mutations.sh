#!/bin/sh
# Plants every bug of sim/mutations, one at a time, in a copy of the sources, and says how many
# seeds the simulator needs to find it and which checker does. NAMES limits it to some, SEEDS to
# how many seeds are tried. The table of the last run stands in docs/simulator.md.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
seeds=${SEEDS:-25}
# Nothing that is built here may be taken for what is built from the sources as they are.
target=${CARGO_TARGET_DIR:-$PWD/target}/mutations
export CARGO_TARGET_DIR="$target"
# Quick to build: there are many of them.
fast='--config profile.dev.package.tepui-sim.opt-level=0 --config profile.dev.debug=0'
$cargo build --quiet -p tepui-sim $fast
plain=$(mktemp -d)
cp "$target/debug/tepui-sim" "$plain/"
# A fixed place: what was built there once need not be built again.
tree=$target/tree
git worktree add --quiet --detach "$tree" HEAD
trap 'git worktree remove --force "$tree"; rm -rf "$plain"' EXIT
names=${NAMES:-$("$plain/tepui-sim" mutations | cut -d' ' -f1)}
echo '| bug | seeds | checker | first words |'
echo '|---|---|---|---|'
# The first failure of what is run.
first_of() {
    "$target/debug/tepui-sim" "$@" | grep -m1 FAILED || true
}

for name in $names; do
    git -C "$tree" checkout --quiet .
    "$plain/tepui-sim" mutations "$name" "$tree"
    if ! (cd "$tree" && $cargo build --quiet -p tepui-sim $fast 2>"$plain/errors"); then
        echo "| \`$name\` | does not build | | $(grep -m1 '^error' "$plain/errors") |"
        continue
    fi
    # A few seeds, every scenario, the other seeds, and the scenarios with other seeds.
    where=
    found=$(first_of run "1..5" --jobs 1 --first --no-shrink)
    if [ -z "$found" ]; then
        found=$(first_of scenarios 1..2)
        where='scenario '
    fi
    if [ -z "$found" ]; then
        found=$(first_of run "6..$seeds" --jobs 1 --first --no-shrink)
        where=
    fi
    if [ -z "$found" ]; then
        found=$(first_of scenarios 3..20)
        where='scenario '
    fi
    if [ -z "$found" ]; then
        echo "| \`$name\` | not within $seeds | | |"
        continue
    fi
    which=$(echo "$found" | sed 's/ FAILED:.*//; s/ (seed [12])//; s/^seed //')
    rest=$(echo "$found" | sed 's/.*FAILED: //')
    checker=${rest%% *}
    words=$(echo "$rest" | sed 's/^[^:]*: //' | cut -c1-90 | tr '|' '/')
    echo "| \`$name\` | $where$which | $checker | $words |"
done
