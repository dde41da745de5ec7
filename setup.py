"""Build the compiled modules of ssh_fast, linked with libcrypto of OpenSSL 3.0 or later. The environment decides:

OPENSSL_DIR=/path     use the OpenSSL below that folder instead of asking pkg-config
SSH_FAST_WERROR=1     a compiler warning in our own C is an error (so it is where CI is set)
SSH_FAST_SANITIZE=1   build with AddressSanitizer and UndefinedBehaviorSanitizer
SSH_FAST_TRACE=1      build with Cython's line tracing, for coverage
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = [
    '_cipher_modes', '_cipher_registered', '_cipher', '_packet', '_queue', '_flow', '_datagrams', '_file_lanes',
    '_sftp_messages', '_sftp_pipeline', '_sftp_codec', '_power',
]  # fmt: skip
WERROR, CI, SANITIZE, TRACE = (
    os.environ.get(name, '').lower() not in ('', '0', 'false')
    for name in ('SSH_FAST_WERROR', 'CI', 'SSH_FAST_SANITIZE', 'SSH_FAST_TRACE')
)
FLAVOUR = ('sanitize' if SANITIZE else 'plain') + '-trace' * TRACE    # each flavour has its own folder below build/
SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer'] * SANITIZE
# What Cython's own C is not clean of.
QUIET = ['unused-parameter', 'unused-function', 'missing-field-initializers', 'cast-function-type']
WARNINGS = ['-Wall', '-Wextra', *(f'-Wno-{name}' for name in QUIET)] + ['-Werror'] * (WERROR or CI)
NO_OPENSSL = """ssh_fast is built with OpenSSL 3.0 or later: {}. To install it:
    Debian, Ubuntu   apt-get install libssl-dev pkg-config
    Fedora, RHEL     dnf install openssl-devel pkgconf-pkg-config
    Alpine           apk add openssl-dev pkgconf
    macOS            brew install openssl@3; export OPENSSL_DIR="$(brew --prefix openssl@3)"
OPENSSL_DIR names the folder that has include/openssl and lib, where pkg-config does not know it."""


def find_openssl() -> tuple[list[str], list[str]]:
    """Return the compiler's and the linker's flags for libcrypto; exit with what to install if it is missing or old."""
    if root := os.environ.get('OPENSSL_DIR'):
        header = Path(root, 'include/openssl/opensslv.h')
        if not header.is_file():
            raise SystemExit(NO_OPENSSL.format(f'there is no {header}'))
        if not re.search(r'define\s+OPENSSL_VERSION_MAJOR\s+([3-9]|\d\d)', header.read_text()):
            raise SystemExit(NO_OPENSSL.format(f'{root} has an older one'))
        folders = [str(folder.absolute()) for folder in (Path(root, 'lib64'), Path(root, 'lib')) if folder.is_dir()]
        libs = [f'{flag}{folder}' for folder in folders for flag in ('-L', '-Wl,-rpath,')]
        return [f'-I{root}/include'], [*libs, '-lcrypto']
    try:
        version, cflags, libs = (
            subprocess.run(['pkg-config', option, 'libcrypto'], check=True, capture_output=True, text=True).stdout
            for option in ('--modversion', '--cflags', '--libs')
        )
    except FileNotFoundError:
        raise SystemExit(NO_OPENSSL.format('there is no pkg-config to find it')) from None
    except subprocess.CalledProcessError:
        raise SystemExit(NO_OPENSSL.format('pkg-config does not know libcrypto')) from None
    if int(version.split('.')[0]) < 3:
        raise SystemExit(NO_OPENSSL.format(f'pkg-config found {version.strip()}'))
    return shlex.split(cflags), shlex.split(libs)


class BuildExt(build_ext):
    """Compile with our flags; OpenSSL is looked for only here, so that an sdist needs none."""

    def run(self) -> None:
        if self.editable_mode:
            self.build_lib = f'build/{FLAVOUR}/editable'    # kept, so that the next time builds only what has changed
        super().run()

    def build_extensions(self) -> None:
        cflags, libs = find_openssl()
        for extension in self.extensions:
            extension.extra_compile_args += ['-O1' if SANITIZE else '-O3', '-fno-strict-aliasing']
            extension.extra_compile_args += WARNINGS + SANITIZERS + cflags
            extension.extra_link_args += SANITIZERS + libs
            extension.define_macros += [('CYTHON_TRACE', '1'), ('CYTHON_TRACE_NOGIL', '1')] * TRACE
        super().build_extensions()


setup(
    ext_modules=cythonize(
        [Extension(f'ssh_fast.{name}', [f'ssh_fast/{name}.pyx']) for name in MODULES],
        build_dir=f'build/cython-{FLAVOUR}',
        compiler_directives={'language_level': 3, 'linetrace': TRACE},
    ),
    options={
        'build': {'build_base': f'build/{FLAVOUR}'},
        'build_ext': {'force': FLAVOUR != 'plain', 'parallel': os.cpu_count()},
    },
    cmdclass={'build_ext': BuildExt},
)
