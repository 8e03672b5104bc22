#!/bin/sh
# Makes a Python environment with what a list names in the user's cache, by pip, and prints `export OVERDRIVE_PYTHON=…` for `eval`.
#   scripts/fetch-python.sh [training|scripts/fuzz-api]
# Does nothing when the environment is there already, made from the same list.
set -eu

what=${1:-training}
list=$(dirname "$0")/../$what/requirements.txt
folder=${XDG_CACHE_HOME:-$HOME/.cache}/overdrive/$(basename "$what")
python=$folder/bin/python3

if ! cmp -s "$list" "$folder/requirements.txt"; then
    echo "installing what $what needs by pip" >&2
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --requirement "$list" >&2
    cp "$list" "$folder/requirements.txt"
fi
echo "export OVERDRIVE_PYTHON='$python'"
