#!/bin/sh
# Asks a running `overdrive demo` everything that /openapi.json describes, rightly and wrongly, and checks each answer against it.
#   scripts/fuzz-api.sh [target/debug/overdrive]
# N=20 examples of each operation, SEED=1; a failure prints the request as a line of curl. Needs Python 3 with pip for schemathesis.
set -eu
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug/overdrive}")
[ -x "$binary" ] || { echo "fuzz-api: there is no $binary; \`cargo build\` or the tests make it" >&2; exit 2; }
python=$(scripts/fetch-python.sh scripts/fuzz-api)
eval "$python"
work=$(mktemp -d)
demo=
finish() {
    [ -z "$demo" ] || kill "$demo" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Ports that are free; a token of a write that never comes is not waited for.
OVERDRIVE_STATE_DIR=$work OVERDRIVE_SERVICE__PORT=0 OVERDRIVE_SERVICE__GRPC_PORT=0 OVERDRIVE_SERVICE__TOKEN_WAIT=50ms \
    "$binary" demo --rate 5 >"$work/demo.log" 2>&1 &
demo=$!
for _ in $(seq 600); do
    url=$(sed -n 's/.*\(http:\/\/127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/demo.log" | head -n 1)
    [ -z "$url" ] || break
    kill -0 "$demo" 2>/dev/null || { cat "$work/demo.log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$url" ] || { echo "fuzz-api: the demo says no address within a minute" >&2; cat "$work/demo.log" >&2; exit 1; }

# schemathesis keeps what it found where it runs.
cp scripts/fuzz-api/* "$work"
cd "$work"
"$(dirname "$OVERDRIVE_PYTHON")/schemathesis" run "$url/openapi.json" --max-examples "${N:-20}" --seed "${SEED:-1}" --no-color || {
    tail -n 20 demo.log >&2
    exit 1
}
if grep -q panicked demo.log; then
    echo "fuzz-api: the shim panicked:" >&2
    grep -A 5 panicked demo.log >&2
    exit 1
fi
