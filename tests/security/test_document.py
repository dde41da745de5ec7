"""The tests that docs/security.md names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_document_names_exists() -> None:
    text = (ROOT / 'docs' / 'security.md').read_text()
    named = re.findall(r'`([a-z]+/test_\w+)::(test_\w+)`', text)
    assert len(named) > 100
    missing = [
        f'{file}::{name}'
        for file, name in named
        if not re.search(rf'^(async )?def {name}\(', (ROOT / 'tests' / f'{file}.py').read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_the_document_names_every_test_of_this_folder() -> None:
    """Those of a row at least: the ones that are named after an attack."""
    text = (ROOT / 'docs' / 'security.md').read_text()
    for file in sorted((ROOT / 'tests' / 'security').glob('test_*_rows.py')):
        for name in re.findall(r'^(?:async )?def (test_\w*cve_\w+)\(', file.read_text(), re.MULTILINE):
            assert f'`security/{file.stem}::{name}`' in text, name
