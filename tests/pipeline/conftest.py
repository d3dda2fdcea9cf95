"""The working directory of tests that import modules, data and victims of their own."""

import sys

import pytest
from addresses import forget_modules

from ssl_extract.pipeline import victim


@pytest.fixture
def folder(tmp_path, monkeypatch, registries_restored):
    """An empty working directory, from which own modules are imported and then forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # an edit within a second is seen
    victim.forget()
    yield tmp_path
    victim.forget()
    forget_modules()
