"""The site of the docs: it builds without a warning, names whatever a config can, needs no net."""

import pathlib
import re
import subprocess
import sys

import pytest

import ssl_extract
from ssl_extract import config
from ssl_extract.cli import catalog
from ssl_extract.report import columns

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def ids_of(page):
    """The places of a page that a link can lead to."""
    return set(re.findall(r' id="([^"]+)"', page.read_text()))


def test_the_reference_has_every_registered_name(site):
    registries = catalog.registries()
    assert len(registries) > 15
    for room, registry in registries.items():
        assert {*registry} <= ids_of(site / 'reference' / room / 'index.html'), room


def test_the_reference_has_formulas_sources_and_arguments(site):
    page = (site / 'reference/losses/index.html').read_text()
    softnn = page[page.index(' id="softnn"') : page.index(' id="supcon"')]
    assert '-||a_i - a_j||^2 / t' in softnn and 'ICML 2019, equation 1' in softnn
    assert 'in squared units of the representation' in softnn
    assert 'https://arxiv.org/abs/1812.02766' in page


def test_the_reference_has_every_field_column_and_function(site):
    fields = (site / 'reference/config/index.html').read_text()
    wanted = [name for name, _ in config.base().iteritems(preserve_field_references=False)]
    wanted += [
        f'{part}.{name}'
        for part in wanted
        if hasattr(config.base()[part], 'items')
        for name in config.base()[part]
    ]
    assert len(wanted) > 50
    assert [name for name in wanted if f'<code>{name}</code>' not in fields] == []
    assert 'queries: one view sent is one' in fields
    schema = (site / 'reference/columns/index.html').read_text()
    assert [name for name in columns.NAMES if f'<code>{name}</code>' not in schema] == []
    facade = ids_of(site / 'reference/facade/index.html')
    assert {'collect', 'steal', 'pretrain', 'evaluate', 'load', 'results'} <= facade & {
        *dir(ssl_extract)
    }


def test_no_page_loads_anything_from_the_net(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > 40
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//|<link[^>]*href="?https?:'
    )
    assert [page for page in pages if loaded.search(page.read_text())] == []
