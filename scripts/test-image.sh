#!/bin/sh
# Makes the image that tests run, without a registry: busybox, alone, as every command.
# Usage: scripts/test-image.sh [name]     (default: tepui-test:1)
set -eu
name=${1:-tepui-test:1}
if docker image inspect "$name" >/dev/null 2>&1; then
    exit 0
fi
busybox=$(command -v busybox) || {
    echo "test-image.sh: busybox is missing; install busybox-static" >&2
    exit 1
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/tmp" "$root/etc"
cp "$busybox" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
echo 'daemon:x:1:1:daemon:/:/bin/sh' >> "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
tar -C "$root" -cf - . | docker import --change 'CMD ["/bin/sh"]' \
    --change 'ENV PATH=/bin' - "$name" >/dev/null
