"""Every python block of docs/*.md runs, those of one page in one namespace."""

import pathlib
import re
import sys

import pytest

from ssl_extract.registry import Registry

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
BLOCK = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PAGES = {path.name: BLOCK.findall(path.read_text()) for path in sorted(DOCS.glob('*.md'))}


@pytest.fixture
def registries_restored():
    """What a page registers is forgotten after it."""
    modules = [m for name, m in list(sys.modules.items()) if name.startswith('ssl_extract')]
    found = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Registry)}
    before = [(registry, dict(registry)) for registry in found.values()]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize('page', [name for name, blocks in PAGES.items() if blocks])
def test_python_blocks_run(page, registries_restored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {'__name__': '__main__'}
    for number, block in enumerate(PAGES[page]):
        exec(compile(block, f'{page}, python block {number}', 'exec'), namespace)
