#!/bin/sh
# Run the test suite on several versions of CPython, each in its own .venv-VERSION:   build_support/test_all.sh 3.11 3.12 ...
# An interpreter comes from pyenv or from PATH; one that is on neither is named and left out.
set -eu
cd "$(dirname "$0")/.."

find_version() {
    for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python "python$1"; do
        if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

tested=
absent=
failed=
for version in "$@"; do
    if python=$(find_version "$version"); then
        echo "CPython $version: $python"
        tested="$tested $version"
        "${MAKE:-make}" test VENV=".venv-$version" PYTHON="$python" || failed="$failed $version"
    else
        absent="$absent $version"
    fi
done
[ -z "$absent" ] || echo "Not found, so not tested: CPython$absent (pyenv install ...)" >&2
[ -n "$tested" ] || exit 1
[ -z "$failed" ] || { echo "Failed on CPython$failed" >&2; exit 1; }
echo "Passed on CPython$tested"
