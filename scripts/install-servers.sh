#!/bin/sh
# Installs what the tests start, call or link and this machine lacks: redis-server, Java with Maven, pip, Chromium, OpenSSL. Uses
# apt-get, with sudo when not root; what is on PATH already is left as it is.
set -eu

packages=""
needs() { command -v "$1" >/dev/null 2>&1 || packages="$packages $2"; }
needs redis-server redis-server
needs java default-jre-headless
needs mvn maven
needs chromedriver chromium-driver
needs chromium chromium
needs make make
needs cc gcc
needs pkg-config pkg-config
[ -e /usr/include/openssl/ssl.h ] || pkg-config --exists openssl 2>/dev/null || packages="$packages libssl-dev"
if [ -z "${ORT_DYLIB_PATH:-}" ]; then
    python3 -m pip --version >/dev/null 2>&1 || packages="$packages python3-pip"
fi
if [ -z "${OVERDRIVE_PYTHON:-}" ]; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages="$packages python3-venv"
fi
if [ -z "$packages" ]; then
    exit 0
fi

command -v apt-get >/dev/null 2>&1 || { echo "install-servers: this machine has no apt-get; install by hand:$packages" >&2; exit 1; }
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "install-servers: run as root or with sudo: apt-get install$packages" >&2; exit 1; }
    as_root=sudo
fi

# A package may start its server when it is installed; the tests start their own on free ports.
echo "installing$packages" >&2
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
# shellcheck disable=SC2086 # the names are meant to be split
$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $packages >&2
