#!/bin/sh
# Puts the vendor's libonnxruntime.so into the user's cache, checks it, and prints `export ORT_DYLIB_PATH=…` for `eval`.
#   scripts/fetch-onnxruntime.sh [cpu|gpu]
# Does nothing when the checked library is there already. Needs Python 3 with pip, which takes its index from its own settings.
set -eu

version=1.31.1
python=312      # the wheel's Python; the library inside is the same for all of them
kind=${1:-cpu}
case "$kind-$(uname -s)-$(uname -m)" in
cpu-Linux-x86_64)
    package=onnxruntime
    wheel=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
    library=fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3
    ;;
gpu-Linux-x86_64)
    package=onnxruntime-gpu
    wheel=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
    library=5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303
    ;;
*)
    echo "fetch-onnxruntime: no pinned library for $kind on $(uname -s) $(uname -m); set ORT_DYLIB_PATH to your own" >&2
    exit 2
    ;;
esac

folder=${XDG_CACHE_HOME:-$HOME/.cache}/overdrive/onnxruntime-$version-$kind
file=$folder/libonnxruntime.so.$version

checked() { [ -f "$file" ] && echo "$library  $file" | sha256sum -c --status; }

if ! checked; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo "fetching $package $version by pip" >&2
    printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$wheel" >"$work/requirements.txt"
    python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --implementation cp \
        --python-version "$python" --abi "cp$python" --platform manylinux_2_28_x86_64 \
        --dest "$work" --requirement "$work/requirements.txt" >&2
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    mkdir -p "$folder"
    cp "$work"/wheel/onnxruntime/capi/libonnxruntime* "$work/wheel/onnxruntime/LICENSE" \
        "$work/wheel/onnxruntime/ThirdPartyNotices.txt" "$folder/"
    checked || { echo "fetch-onnxruntime: $file is not the library that was pinned; delete $folder and try again" >&2; exit 1; }
fi
ln -sf "libonnxruntime.so.$version" "$folder/libonnxruntime.so"
echo "export ORT_DYLIB_PATH='$file'"
