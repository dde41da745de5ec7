"""What every test lives with: none of the keys, agent or settings of whoever runs it; steady hypothesis settings."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

SANITIZED = bool(os.environ.get('SSH_FAST_SANITIZED'))

# Deadlines measure the machine, not the code; in CI a failure must come back on the next run.
hypothesis.settings.register_profile(
    'steady', deadline=None, derandomize='CI' in os.environ, max_examples=25 if SANITIZED else 100
)
hypothesis.settings.load_profile('steady')


def pytest_report_header() -> str:
    build = 'with AddressSanitizer and UBSan' if SANITIZED else 'plain build'
    return f'ssh_fast: {build}; the interpreter has {ssl.OPENSSL_VERSION}'


@pytest.fixture(scope='session', autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder with nothing in it; no agent."""
    home = tmp_path_factory.mktemp('home')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HOME', str(home))
        patch.delenv('SSH_AUTH_SOCK', raising=False)
        yield home


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long parameters by their argument: keys are made anew in each process, and all must name tests alike."""
    if isinstance(val, bytes):
        varies = len(val) > 48 or not val.isascii()
    else:
        varies = isinstance(val, str) and len(val) > 48

    return argname if varies else None
