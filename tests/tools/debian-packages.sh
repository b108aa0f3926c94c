#!/bin/sh
# Install the Debian packages that are missing, and say nothing when none is.
# Usage: debian-packages.sh venv PYTHON | real
set -eu

missing=""
need() { # need COMMAND PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need_header() { # need_header FILE PACKAGE
    test -e "/usr/include/$1" || missing="$missing $2"
}

case "$1" in
venv)
    "$2" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $2-venv"
    ;;
real)
    need runc runc
    need docker-registry docker-registry
    need mmdebstrap mmdebstrap
    need openssl openssl
    need busybox busybox-static
    need setpriv util-linux
    need mount mount
    need git git
    need ssh-agent openssh-client
    need strace strace
    need zstd zstd
    need lz4 lz4
    need sshd openssh-server
    need podman podman
    need docker docker.io
    need iptables iptables
    need chromium chromium
    need chromedriver chromium-driver
    need cc "gcc libc6-dev"
    need pkg-config pkg-config
    need_header systemd/sd-journal.h libsystemd-dev
    need_header nftables/libnftables.h libnftables-dev
    need_header seccomp.h libseccomp-dev
    test -s /etc/ssl/certs/ca-certificates.crt || missing="$missing ca-certificates"
    ;;
*)
    echo "usage: $0 venv PYTHON | real" >&2
    exit 2
    ;;
esac

test -n "$missing" || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing:$missing. This machine has no apt-get; install them in its own way and try again." >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Missing:$missing. Installing them takes root: run \`apt-get install$missing\` as root and try again." >&2
        exit 1
    fi
    as_root="sudo"
fi

echo "installing from Debian:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Two makes at once wait for each other at apt's own lock.
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
if ! { $apt update && $apt install --yes --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
