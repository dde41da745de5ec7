#!/bin/sh
# Make a virtual environment with ssh_fast built in place:   build_support/set_up.sh FOLDER EXTRA[,EXTRA...]
#
# A C compiler, Python's headers and OpenSSL 3's headers are looked for first. What is missing is installed where this
# user may (apt-get, dnf and apk as root, brew as anyone), else the commands that install it are printed.
# PYTHON names the interpreter to use, OPENSSL_DIR an OpenSSL that pkg-config does not know.
set -eu

venv=$1
extras=$2
cd "$(dirname "$0")/.."
cc=${CC:-cc}

say() { printf '%s\n' "$*" >&2; }

usable_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if usable_python "$python"; then
            # The interpreter itself, not a version manager's shim, which could later start another one.
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

compiles() {  # compiles SOURCE FLAG...: can the compiler build and link it?
    source=$1
    shift
    printf '%s\n' "$source" > "$scratch/check.c"
    "$cc" "$scratch/check.c" -o "$scratch/check" "$@" >/dev/null 2>&1
}

find_missing() {  # set `missing` to what is not there, among: python compiler venv headers openssl
    missing=
    python=$(find_python) || missing="$missing python"
    compiles 'int main(void) { return 0; }' || missing="$missing compiler"
    if [ -n "$python" ]; then
        "$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing venv"
        headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
        [ -f "$headers/Python.h" ] || missing="$missing headers"
    fi
    if [ -n "${OPENSSL_DIR:-}" ]; then
        openssl_cflags=-I$OPENSSL_DIR/include
    else
        openssl_cflags=$(pkg-config --cflags libcrypto 2>/dev/null) || openssl_cflags=-DNO_PKG_CONFIG
    fi
    # shellcheck disable=SC2086
    case $missing in
        *compiler*) [ "$openssl_cflags" != -DNO_PKG_CONFIG ] || missing="$missing openssl" ;;
        *) compiles '
#include <openssl/evp.h>
#if defined(NO_PKG_CONFIG) || OPENSSL_VERSION_NUMBER < 0x30000000L
#error "OpenSSL 3.0 or later is needed"
#endif
int main(void) { return 0; }' $openssl_cflags || missing="$missing openssl" ;;
    esac
}

packages_for() {  # the packages of a manager that hold what is missing
    suffix=3
    if [ -n "$python" ] && [ "$1" != brew ]; then
        case $python in
            /usr/bin/*) suffix=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ;;
        esac
    fi
    for thing in $missing; do
        case $1:$thing in
            apt:python) echo python3 python3-dev python3-venv ;;
            apt:compiler) echo gcc libc6-dev ;;
            apt:venv) echo "python$suffix-venv" ;;
            apt:headers) echo "python$suffix-dev" ;;
            apt:openssl) echo libssl-dev pkg-config ;;
            dnf:python) echo python3.12 python3.12-devel ;;
            dnf:compiler) echo gcc ;;
            dnf:venv) echo "python$suffix-libs" ;;
            dnf:headers) echo "python$suffix-devel" ;;
            dnf:openssl) echo openssl-devel pkgconf-pkg-config ;;
            apk:python) echo python3 python3-dev ;;
            apk:compiler) echo gcc musl-dev linux-headers ;;
            apk:venv) echo python3 ;;
            apk:headers) echo python3-dev ;;
            apk:openssl) echo openssl-dev pkgconf ;;
            brew:python | brew:venv | brew:headers) echo python@3.13 ;;
            brew:openssl) echo openssl@3 pkgconf ;;
        esac
    done | tr ' ' '\n' | sort -u | tr '\n' ' ' | sed 's/ $//'
}

install_missing() {  # with the manager that is there, if this user may; fails if there is none
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing$missing: apt-get install $(packages_for apt)"
        # shellcheck disable=SC2046
        apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qqy $(packages_for apt) >&2
    elif [ "$(id -u)" = 0 ] && command -v dnf >/dev/null; then
        say "Installing$missing: dnf install $(packages_for dnf)"
        # shellcheck disable=SC2046
        dnf install -qy $(packages_for dnf) >&2
    elif [ "$(id -u)" = 0 ] && command -v apk >/dev/null; then
        say "Installing$missing: apk add $(packages_for apk)"
        # shellcheck disable=SC2046
        apk add -q $(packages_for apk) >&2
    elif [ "$(id -u)" != 0 ] && command -v brew >/dev/null && [ "${missing#*compiler}" = "$missing" ]; then
        say "Installing$missing: brew install $(packages_for brew)"
        # shellcheck disable=SC2046
        brew install -q $(packages_for brew) >&2
    else
        return 1
    fi
}

name_missing() {
    say "Missing:$missing. To install it:"
    say "    Debian, Ubuntu   sudo apt-get install $(packages_for apt)"
    say "    Fedora, RHEL     sudo dnf install $(packages_for dnf)"
    say "    Alpine           sudo apk add $(packages_for apk)"
    brew=$(packages_for brew)
    case $missing in
        *compiler*) say "    macOS            xcode-select --install${brew:+ && brew install $brew}" ;;
        *) say "    macOS            brew install $brew" ;;
    esac
    say 'PYTHON names another interpreter (3.11 or later), CC another compiler, OPENSSL_DIR another OpenSSL (3.0 or later).'
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# Homebrew's OpenSSL is where pkg-config does not look.
if [ -z "${OPENSSL_DIR:-}" ] && ! pkg-config --exists libcrypto 2>/dev/null && command -v brew >/dev/null; then
    OPENSSL_DIR=$(brew --prefix openssl@3 2>/dev/null || true)
    export OPENSSL_DIR
fi

find_missing
if [ -n "$missing" ]; then
    install_missing || { name_missing; exit 1; }
    find_missing
    [ -z "$missing" ] || { name_missing; exit 1; }
fi

if ! usable_python "$venv/bin/python"; then
    say "Making $venv with $("$python" --version) ($python)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
say "Installing ssh_fast[$extras] into $venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1
requirements=$("$venv/bin/python" -c '
import tomllib
with open("pyproject.toml", "rb") as stream:
    print("\n".join(tomllib.load(stream)["build-system"]["requires"]))')
printf '%s\n' "$requirements" > "$scratch/requirements.txt"
"$venv/bin/python" -m pip install -q -r "$scratch/requirements.txt"
"$venv/bin/python" -m pip install -q --no-build-isolation -e ".[$extras]"
