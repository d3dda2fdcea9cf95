"""The user's own modules: their source is part of what the results that use them depend on."""

import sys

import jax
import numpy as np
import pytest

from ssl_extract import defenses, losses
from ssl_extract.errors import UserError
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import NO_MODULES, Workspace
from ssl_extract.pipeline.modules import import_modules

LOSS = """
import jax.numpy as jnp
import numpy as np
from ssl_extract import losses
{imports}

@losses.register({name!r})
def own(weight=1.0):
    return lambda student, teacher, labels=None, where=None: {formula}
"""
PLAIN = dict(imports='', name='my_loss', formula='weight * jnp.mean((student - teacher) ** 2)')


@pytest.fixture
def folder(tmp_path, monkeypatch, registries_restored):
    """An empty folder that modules are imported from; they are forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # an edit within a second is seen
    yield tmp_path
    forget(set(sys.modules) - before)


def forget(names):
    for name in names:
        if not name.startswith(('ssl_extract', 'jax', 'numpy')):
            sys.modules.pop(name, None)


def write(path, text='', **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or LOSS.format(**PLAIN | fields))


def imported(*names, folder=None):
    """The modules as a process that is new sees them."""
    for registry in (losses.LOSSES, defenses.DEFENSES):
        own = {n for n, e in registry.entries.items() if not e.module.startswith('ssl_extract')}
        for name in own:
            del registry.entries[name]
    forget([m for m, loaded in sys.modules.items() if _lies_in(loaded, folder)])
    return import_modules(names)


def _lies_in(module, folder):
    return str(getattr(module, '__file__', None) or '').startswith(str(folder))


def address(modules, **spec):
    workspace = Workspace(None, None, modules)
    return stage.address(workspace, {'stage': 'surrogate', 'loss': 'mse'} | spec)


def test_an_edited_module_has_another_source_and_its_results_another_address(folder):
    write(folder / 'mine.py')
    one = imported('mine', folder=folder)
    again = imported('mine', folder=folder)
    write(folder / 'mine.py', formula='weight * jnp.mean(jnp.abs(student - teacher))')
    edited = imported('mine', folder=folder)
    assert one == again and one.sources != edited.sources
    assert one.names == edited.names == {'my_loss'}
    assert address(one, loss='my_loss') == address(again, loss='my_loss')
    assert address(one, loss='my_loss') != address(edited, loss='my_loss')
    assert losses.make('my_loss')(np.ones((2, 3)), np.full((2, 3), 3.0)) == 2.0  # as edited


NEIGHBORS = {  # how a module imports its neighbor -> where that lies
    'import helper': 'helper.py',
    'from helper import SCALE': 'helper.py',
    'from parts import helper': 'parts/helper.py',
    'import parts.helper': 'parts/helper.py',
    'from parts.helper import SCALE': 'parts/helper.py',
}


@pytest.mark.parametrize(('imports', 'neighbor'), NEIGHBORS.items())
def test_an_edited_neighbor_counts(folder, imports, neighbor):
    write(folder / 'mine.py', imports=imports)
    write(folder / 'parts/__init__.py', '"""Parts."""')
    write(folder / neighbor, 'SCALE = 1.0')
    one = imported('mine', folder=folder)
    write(folder / neighbor, 'SCALE = 2.0')
    edited = imported('mine', folder=folder)
    assert one.sources != edited.sources
    if 'parts' in imports:
        write(folder / 'parts/__init__.py', '"""Other parts."""')
        assert imported('mine', folder=folder).sources != edited.sources


def test_a_neighbors_neighbor_counts_and_a_file_that_none_imports_does_not(folder):
    write(folder / 'mine.py', imports='import helper')
    write(folder / 'helper.py', 'from constants import SCALE')
    write(folder / 'constants.py', 'SCALE = 1.0')
    write(folder / 'unrelated.py', 'SCALE = 1.0')
    one = imported('mine', folder=folder)
    write(folder / 'unrelated.py', 'SCALE = 2.0')
    assert imported('mine', folder=folder) == one
    write(folder / 'constants.py', 'SCALE = 2.0')
    assert imported('mine', folder=folder).sources != one.sources


@pytest.mark.parametrize('imports', ['from . import helper', 'from .helper import SCALE'])
def test_relative_imports_within_a_package_count(folder, imports):
    write(folder / 'package/__init__.py', '"""A package."""')
    write(folder / 'package/mine.py', imports=imports)
    write(folder / 'package/helper.py', 'SCALE = 1.0')
    one = imported('package.mine', folder=folder)
    write(folder / 'package/helper.py', 'SCALE = 2.0')
    assert imported('package.mine', folder=folder).sources != one.sources


def test_a_package_counts_with_all_modules_that_it_imports(folder):
    write(folder / 'package/__init__.py', 'from package import mine')
    write(folder / 'package/mine.py')
    one = imported('package', folder=folder)
    assert one.names == {'my_loss'}
    write(folder / 'package/mine.py', formula='weight * jnp.mean(jnp.abs(student - teacher))')
    assert imported('package', folder=folder).sources != one.sources


def test_what_a_neighbor_registers_is_the_modules(folder):
    write(folder / 'mine.py', imports='import helper')
    write(folder / 'helper.py', name='helpers_loss')
    assert imported('mine', folder=folder).names == {'my_loss', 'helpers_loss'}


def test_only_results_that_name_what_they_registered_depend_on_them(folder):
    write(folder / 'mine.py')
    write(folder / 'other.py', name='other_loss')
    modules = imported('mine', 'other', folder=folder)
    assert [name for name, _ in modules.sources] == ['mine', 'other']
    sources = dict(modules.sources)
    assert modules.used_in({'attack': {'loss': 'my_loss(weight=2.0)'}}) == sources
    assert modules.used_in({'defense': 'round | other_loss'}) == sources  # they may use each other
    for spec in ({'loss': 'mse'}, {'loss': 'my_losses'}, {'loss': 'not_my_loss'}, {'weight': 1}):
        assert modules.used_in(spec) == {}
    assert address(modules) == address(NO_MODULES)
    assert address(modules, loss='my_loss') != address(NO_MODULES, loss='my_loss')


def test_on_a_module_that_registers_nothing_every_result_depends(folder):
    write(folder / 'patches.py', 'import ssl_extract')
    alone = imported('patches', folder=folder)
    assert alone.names == frozenset()
    assert alone.used_in({'loss': 'mse'}) == dict(alone.sources)
    assert address(alone) != address(NO_MODULES)
    write(folder / 'mine.py')
    both = imported('mine', 'patches', folder=folder)
    assert set(both.used_in({'loss': 'mse'})) == {'patches'}
    assert set(both.used_in({'loss': 'my_loss'})) == {'mine', 'patches'}


def test_where_a_module_lies_does_not_matter(folder, monkeypatch):
    write(folder / 'mine.py')
    here = imported('mine', folder=folder)
    write(folder / 'elsewhere/mine.py')
    (folder / 'mine.py').unlink()
    monkeypatch.syspath_prepend(str(folder / 'elsewhere'))
    assert imported('mine', folder=folder) == here


def test_it_says_which_module_is_missing(folder):
    write(folder / 'mine.py', imports='import no_such_neighbor')
    for name in ('nothing', 'nothing.inside', 'mine.py', 'json.nothing', 'a/b'):
        with pytest.raises(UserError, match="there is no module '.*' in .*; write its name with"):
            import_modules((name,))
        write(folder / 'mine.py', 'import json')
    for name in (1, '', '.mine', 'mine..inside', None):
        with pytest.raises(UserError, match='modules: .*: write the name of a module, without .py'):
            import_modules((name,))


BROKEN = {
    'x = (': r"modules: 'broken': .*broken.py, line 1: '\(' was never closed",
    'x = 1\n1 / 0': r"modules: 'broken': .*broken.py, line 2: ZeroDivisionError: division by zero",
    'import no_such_neighbor': r"broken.py, line 1: ModuleNotFoundError: .*'no_such_neighbor'",
    'import helper': r"modules: 'broken': .*helper.py, line 1: invalid syntax",
    'def f():\n  import helper': r'modules: .*helper.py, line 1: invalid syntax',
    'raise SystemExit(0)': r'broken.py, line 1: SystemExit: 0',
    'x = "\udcff"': r'broken.py, line 1: .*utf-8',
    'x = "\0"': r"modules: 'broken': .*null bytes",
    'import losses_twice': r"losses_twice.py, line 2: loss 'mse' is already registered",
}


@pytest.mark.parametrize(('text', 'message'), BROKEN.items())
def test_a_module_whose_import_fails_is_told_with_its_place(folder, text, message):
    (folder / 'broken.py').write_bytes(text.encode(errors='surrogateescape'))
    write(folder / 'helper.py', 'def f(:')
    twice = "from ssl_extract import losses\nlosses.register('mse')(lambda: None)"
    write(folder / 'losses_twice.py', twice)
    with pytest.raises(UserError, match=message):
        import_modules(('broken',))


def test_a_byte_order_mark_is_no_error(folder):
    (folder / 'mine.py').write_bytes(b'\xef\xbb\xbf' + LOSS.format(**PLAIN).encode())
    assert import_modules(('mine',)).names == {'my_loss'}


def test_a_module_without_source_is_refused(folder):
    with pytest.raises(UserError, match="'sys' has no source file; name a .py module"):
        import_modules(('sys',))


def test_the_loss_runs(folder):
    write(folder / 'mine.py')
    imported('mine', folder=folder)
    loss = losses.make('my_loss(weight=3.0)')
    assert float(jax.jit(loss)(np.zeros((2, 4)), np.ones((2, 4)))) == 3.0


def test_what_the_experiment_file_registers_counts_where_it_is_named(folder):
    def addresses(formula):
        losses.LOSSES.entries.pop('my_loss', None)
        exec(LOSS.format(**PLAIN | {'formula': formula}), {'__name__': '__main__'})
        workspace = Workspace(folder, None, import_modules(()))
        return [stage.address(workspace, {'loss': name}) for name in ('my_loss(2.0)', 'mse')]

    one = addresses(PLAIN['formula'])
    assert addresses(PLAIN['formula']) == one
    other = addresses('jnp.sum(student)')
    assert other[0] != one[0] and other[1] == one[1]
