#!/bin/sh
# Lays out one folder for each image (a binary, the shared libraries it names, busybox
# for a shell, certificates) and builds the images from them. PROFILE=dev uses the
# development build.
set -eu
cd "$(dirname "$0")/.."
scripts/docker.sh
profile=${PROFILE:-release}
case "$profile" in
release) target=${CARGO_TARGET_DIR:-target}/release ;;
dev) target=${CARGO_TARGET_DIR:-target}/debug ;;
*) echo "images: PROFILE is release or dev, not $profile" >&2; exit 2 ;;
esac
if [ "${SKIP_BUILD:-}" = "" ]; then
    ${CARGO:-cargo} build --profile "$profile" --bin tepui --bin tepui-master --bin tepui-agent --bin tepui-shim
fi

# copy_with_libraries BINARY ROOT
copy_with_libraries() {
    mkdir -p "$2/usr/bin"
    cp "$1" "$2/usr/bin/"
    # Lines such as "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)" and the loader's.
    ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
        while read -r library; do
            mkdir -p "$2$(dirname "$library")"
            cp -L "$library" "$2$library"
        done
}

# lay_out NAME BINARY...
lay_out() {
    root=docker/rootfs/$1
    name=$1
    shift
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/var/lib" "$root/etc/ssl/certs"
    chmod 1777 "$root/tmp"
    for binary in "$@"; do
        copy_with_libraries "$target/$binary" "$root"
    done
    cp /bin/busybox "$root/bin/busybox"
    for applet in sh ls cat env mkdir sleep; do
        ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    [ -e /etc/ssl/certs/ca-certificates.crt ] &&
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    echo "images: tepui/$name"
    docker build --quiet --tag "tepui/$name:latest" --file "docker/$name.Dockerfile" "$root"
}

lay_out master tepui-master
lay_out agent tepui-agent tepui-shim
lay_out cli tepui
