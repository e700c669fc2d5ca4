#!/usr/bin/env bash
# Finds or installs the libtorch that the feature `libtorch` is built against, and prints what a shell must export:
#
#     eval "$(scripts/libtorch.sh [FOLDER])"
#     cargo build --release -p inarch --features libtorch
#
# First match wins: `LIBTORCH`, if it is set and holds a library of the right version; the torch of `PYTHON` (default
# `python3`); the Python environment in FOLDER (default `target/libtorch-env`), which is made where it is missing, with
# torch from pip. What is built against a CUDA build loads all of CUDA's libraries, also where it computes on the processor: about
# 6 GB where pip's index has that build, 1 GB where `PIP_INDEX_URL` names an index with a CPU build.
set -euo pipefail

# Which one: that of `TORCH_VERSION` in the build script of torch-sys, the crate below burn-tch.
version=2.9.0
# Patch releases keep the C++ interface.
series=${version%.*}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/target/libtorch-env}

say() {
    printf '%s\n' "$1" >&2
}

# The version of the libtorch in a folder: a distribution says it in a file, a wheel in a module.
version_of() {
    if [[ -f "$1/build-version" ]]; then
        cut -d + -f 1 "$1/build-version"
    elif [[ -f "$1/version.py" ]]; then
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py"
    fi
}

# Whether a folder holds headers and a library of the right series.
fits() {
    local found
    [[ -n "$1" && -d "$1/include/torch" ]] || return 1
    compgen -G "$1/lib/libtorch_cpu.*" >/dev/null || return 1
    found=$(version_of "$1")
    [[ "$found" == "$series".* ]]
}

# Where a Python keeps torch, without loading it.
torch_of() {
    "$1" -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")' \
        2>/dev/null || true
}

install() {
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$1" >&2
}

offer() {
    local lib=$1/lib path=LD_LIBRARY_PATH
    [[ "$(uname -s)" == Darwin ]] && path=DYLD_LIBRARY_PATH
    say "libtorch $(version_of "$1") in $1"
    printf 'export LIBTORCH=%q\n' "$1"
    # shellcheck disable=SC2016  # expanded by the shell that evaluates it
    printf 'export %s=%q${%s:+:$%s}\n' "$path" "$lib" "$path" "$path"
    exit 0
}

if [[ -n "${LIBTORCH:-}" ]]; then
    fits "$LIBTORCH" && offer "$LIBTORCH"
    say "LIBTORCH=$LIBTORCH: expected libtorch $series with include/ and lib/, found '$(version_of "$LIBTORCH")'"
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || {
    say "error: there is no $python; install Python 3.10 to 3.13, or set LIBTORCH to a libtorch $version"
    exit 1
}
installed=$(torch_of "$python")
fits "$installed" && offer "$installed"

if [[ ! -x "$folder/bin/python" ]]; then
    say "making a Python environment in $folder"
    "$python" -m venv "$folder"
fi
installed=$(torch_of "$folder/bin/python")
if ! fits "$installed"; then
    say "installing torch $version"
    install "torch==$version"
    installed=$(torch_of "$folder/bin/python")
fi
fits "$installed" && offer "$installed"
say "error: pip installed no libtorch $series in $folder; set LIBTORCH to one"
exit 1
