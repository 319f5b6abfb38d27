#!/bin/sh
# Runs every test of the workspace. The binaries are built first because the tests
# of real processes start them.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
echo "==> building the binaries"
$cargo build --workspace --bins --examples
echo "==> testing"
if $cargo nextest --version >/dev/null 2>&1; then
    $cargo nextest run --workspace --no-fail-fast "$@"
    echo "==> testing the examples in the documentation"
    $cargo test --workspace --doc --quiet
else
    $cargo test --workspace --no-fail-fast "$@"
fi
