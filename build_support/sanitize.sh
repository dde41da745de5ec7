#!/bin/sh
# Build with AddressSanitizer and UndefinedBehaviorSanitizer in a copy below build/, and run tests there:
#     build_support/sanitize.sh PYTHON [OPTION OF PYTEST | TEST]...
# Memory comes from malloc, not from Python's pools, so that a read or write past any object is seen.
set -eu
cd "$(dirname "$0")/.."
case $1 in
    /*) python=$1 ;;
    *) python=$PWD/$1 ;;
esac
shift

copy=build/sanitize-tree
mkdir -p "$copy"
rm -rf "$copy/ssh_fast" "$copy/tests"
cp -Rp setup.py pyproject.toml README.md LICENSE ssh_fast tests "$copy"
rm -f "$copy"/ssh_fast/*.so
cd "$copy"
SSH_FAST_SANITIZE=1 "$python" setup.py -q build_ext --inplace

tests=
for test in "$@"; do
    case $test in
        -*) tests="$tests $test" ;;
        *) [ ! -e "$test" ] || tests="$tests $test" ;;
    esac
done
cc=${CC:-cc}
case $(uname) in
    Darwin) leaks=0 preload=DYLD_INSERT_LIBRARIES=$("$cc" -print-file-name=libclang_rt.asan_osx_dynamic.dylib) ;;
    *) leaks=1 preload="LD_PRELOAD=$("$cc" -print-file-name=libasan.so) $("$cc" -print-file-name=libstdc++.so)" ;;
esac
# The interpreter and modules of others leave memory behind at their end; a leak counts if a frame of ours is in its stack.
reports=$PWD/reports
rm -rf "$reports"
mkdir "$reports"
status=0
# shellcheck disable=SC2086
env "$preload" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=$leaks:abort_on_error=0:allocator_may_return_null=1:log_path="$reports/report" \
    LSAN_OPTIONS=exitcode=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    SSH_FAST_SANITIZED=1 "$python" -m pytest -q -p no:cacheprovider $tests || status=$?
if ours=$(grep -lE 'ERROR: AddressSanitizer|ssh_fast/_' "$reports"/* 2>/dev/null); then
    # shellcheck disable=SC2086
    cat $ours >&2
    echo 'The sanitizers found what is above.' >&2
    exit 1
fi
exit $status
