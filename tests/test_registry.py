import ast
import importlib
import pathlib
import pkgutil

import pytest

import ssl_extract
from ssl_extract import registry
from ssl_extract.errors import UserError
from ssl_extract.registry import Registry, parse_call, registered_by, split_chain

PACKAGE = pathlib.Path(ssl_extract.__file__).parent


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.setattr(registry, 'REGISTRIES', {})
    shapes = Registry('shape', choices={'needs': ('paper', 'ink')}, needs=(), round=False, sides=0)

    @shapes.register('square', needs=('paper',), sides=4)
    def square(side: float = 1.0, *, label: str = ''):
        if side < 0:
            raise UserError(f'side must be >= 0, got {side}')
        return ('square', side, label)

    @shapes.register('disk', round=True, needs=lambda dim, **_: ('ink',) * (dim or 0))
    def disk(radius=1.0, dim=2):
        return ('disk', radius, dim)

    return shapes


def message(function, *args, **kwargs) -> str:
    """The one line of the UserError that the call ends in."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('spec', 'made'),
    [
        ('square', ('square', 1.0, '')),
        ('square()', ('square', 1.0, '')),
        (' square( 2 ) ', ('square', 2, '')),
        ('square(side=-0.0)', ('square', 0.0, '')),
        ('square(1e-3, label="a | b")', ('square', 1e-3, 'a | b')),
        ('square(label=\'say "hi"\')', ('square', 1.0, 'say "hi"')),
        ('disk((1, 2), dim=None)', ('disk', (1, 2), None)),
    ],
)
def test_make_reads_literals(shapes, spec, made):
    assert shapes.make(spec) == made


def test_given_fills_only_what_is_left_out_and_has_a_parameter(shapes):
    assert shapes.make('disk', radius=5, dim=3, key=0) == ('disk', 5, 3)
    assert shapes.make('disk(radius=1)', radius=5, dim=3) == ('disk', 1, 3)
    assert shapes.make('disk(1)', radius=5, dim=3) == ('disk', 1, 3)
    assert shapes.make_all('disk(2) | square', radius=5) == [('disk', 2, 2), ('square', 1.0, '')]


@pytest.mark.parametrize('name', ['squre', 'SQUARE', 'square_'])
def test_unknown_name_suggests_the_nearest_and_lists_all(shapes, name):
    assert (
        message(shapes.make, f'{name}(2)')
        == f"unknown shape {name!r}: did you mean 'square'? known are disk, square"
    )


def test_unknown_name_far_from_all_only_lists(shapes):
    assert message(shapes.make, 'xyz') == "unknown shape 'xyz': known are disk, square"


@pytest.mark.parametrize(
    ('spec', 'part'),
    [
        ('disk(raduis=2)', "unexpected keyword argument 'raduis'; it takes (radius=1.0, dim=2)"),
        ('disk(1, 2, 3)', 'too many positional arguments; it takes (radius=1.0, dim=2)'),
        ('square(1, "a")', 'too many positional arguments'),
        ('disk(1, radius=2)', "multiple values for argument 'radius'"),
        ('disk(dim=1, dim=2)', 'each argument once'),
        ('disk(**{"dim": 1})', 'each argument once'),
        ('disk(*[1])', 'an argument is a number'),
        ('disk(1 + 2)', 'an argument is a number'),
        ('disk(radius)', 'an argument is a number'),
        ('disk({[1]: 2})', 'an argument is a number'),
        ('disk(__import__("os"))', 'an argument is a number'),
        ('square("a")', "side must be a finite number, got 'a'"),
        ('square(label=1)', 'label must be a text, got 1'),
        ('square(-1)', 'side must be >= 0, got -1'),  # UserError inside the factory
    ],
)
def test_wrong_arguments_name_the_spec_and_what_fits(shapes, spec, part):
    said = message(shapes.make, spec)
    assert said.startswith(f'shape {spec!r}: ') and part in said


@pytest.mark.parametrize(
    ('spec', 'said'), [('ring("a")', 'unsupported operand'), ('ring(0)', 'division by zero')]
)
def test_an_error_inside_a_factory_or_a_trait_names_the_spec(shapes, spec, said):
    @shapes.register('ring', sides=lambda radius, **_: int(1 / radius))
    def ring(radius=1.0):
        return ('ring', 1 / radius)

    for call in (shapes.make, shapes.traits):
        line = message(call, spec)
        assert line.startswith(f'shape {spec!r}: ') and said in line


@pytest.mark.parametrize(
    'spec', ['', 'disk(', 'disk)', 'disk(1', '1', 'a.b', 'disk(1)(2)', 'two words', '\0', 'a=1']
)
def test_unreadable_spec_says_what_to_write(shapes, spec):
    said = message(shapes.make, spec)
    assert said == f'cannot read shape {spec!r}: write a name or name(arg=1, other="x")'


@pytest.mark.parametrize('spec', [None, 3, ['disk'], b'disk'])
def test_spec_that_is_no_text(shapes, spec):
    assert message(shapes.make, spec).startswith('shape must be text')
    assert message(shapes.make_all, spec).startswith('shape must be text')


@pytest.mark.parametrize(
    ('chain', 'parts'),
    [
        ('', []),
        ('  ', []),
        ('a', ['a']),
        ('a|b | c', ['a', 'b', 'c']),
        ('a(1, x=2.5) | b(y=(1, 2))', ['a(1, x=2.5)', 'b(y=(1, 2))']),
        ('a("|") | b(\'"|"\')', ["a('|')", 'b(\'"|"\')']),
        ('f("g(\'x | y\') | h")|i', ['f("g(\'x | y\') | h")', 'i']),
    ],
)
def test_split_chain(chain, parts):
    assert split_chain(chain) == parts


def test_a_chain_within_an_argument_survives_both_splits():
    (outer, _) = split_chain('f(inner="g(x=\'|\') | h") | i')
    name, args, kwargs = parse_call(outer)
    assert (name, args) == ('f', ()) and split_chain(kwargs['inner']) == ["g(x='|')", 'h']


@pytest.mark.parametrize('chain', ['disk |', '| disk', 'disk || disk', 'disk; disk', 'disk | 1 +'])
def test_broken_chain(shapes, chain):
    said = message(shapes.make_all, chain)
    assert said == f'cannot read shape {chain!r}: write name(arg=1) | name(arg="x")'


@pytest.mark.parametrize('chain', ['disk | 2', 'disk + disk', 'disk | (disk | disk)'])
def test_chain_of_something_else_than_calls(shapes, chain):
    assert message(shapes.make_all, chain).startswith('cannot read shape')


def test_a_name_is_taken_once(shapes):
    before = shapes['disk']
    assert 'already registered' in message(shapes.register('disk'), lambda: None)
    assert shapes['disk'] is before


@pytest.mark.parametrize('name', ['', 'my-shape', 'a b', 'lambda', '2d'])
def test_a_name_that_no_spec_could_write(shapes, name):
    assert 'letters, digits and underscores' in message(shapes.register, name)


def test_register_returns_the_factory(shapes):
    def dot():
        return 'dot'

    assert shapes.register('dot')(dot) is dot and shapes.make('dot') == 'dot'


# Traits


def test_traits_are_those_declared_and_the_defaults(shapes):
    assert shapes.traits('square') == (('paper',), False, 4)
    assert shapes.traits('square(2.0)')._asdict() == {
        'needs': ('paper',),
        'round': False,
        'sides': 4,
    }


@pytest.mark.parametrize(
    ('spec', 'needs'),
    [
        ('disk', ('ink', 'ink')),
        ('disk(1, 0)', ()),
        ('disk(dim=1)', ('ink',)),
    ],
)
def test_a_trait_may_depend_on_the_arguments(shapes, spec, needs):
    assert shapes.traits(spec).needs == needs and shapes.traits(spec).round


def test_traits_of_a_chain(shapes):
    chain = 'disk(dim=0) | square | disk'
    assert shapes.names(chain) == ['disk', 'square', 'disk']
    assert [traits.sides for traits in shapes.traits_of_chain(chain)] == [0, 4, 0]
    assert shapes.needs(chain) == {'paper', 'ink'} and shapes.needs('') == frozenset()
    assert shapes.needs('disk(dim=0)') == frozenset()


@pytest.mark.parametrize('method', ['traits', 'traits_of_chain', 'needs', 'names', 'module_of'])
def test_traits_of_an_unknown_name(shapes, method):
    said = message(getattr(shapes, method), 'squre')
    assert said == "unknown shape 'squre': did you mean 'square'? known are disk, square"


@pytest.mark.parametrize('method', ['traits', 'traits_of_chain', 'needs'])
def test_traits_of_wrong_arguments(shapes, method):
    said = message(getattr(shapes, method), 'disk(raduis=2)')
    assert "'raduis'; it takes (radius=1.0, dim=2)" in said


@pytest.mark.parametrize(
    ('traits', 'said'),
    [
        ({'need': ('ink',)}, "shape 'dot': unknown trait 'need'; write one of needs, round, sides"),
        ({'need': len}, "shape 'dot': unknown trait 'need'; write one of needs, round, sides"),
        ({'needs': 'ink'}, "shape 'dot': needs='ink': write a tuple"),
        ({'needs': ('pen',)}, "shape 'dot': needs=('pen',): 'pen' is none of paper, ink"),
        ({'round': 'yes'}, "shape 'dot': round='yes': write a bool"),
    ],
)
def test_a_wrong_trait_is_refused_where_it_is_registered(shapes, traits, said):
    assert message(shapes.register, 'dot', **traits) == said
    assert 'dot' not in shapes


def test_a_function_that_gives_a_wrong_trait(shapes):
    shapes.register('dot', needs=lambda: 'ink')(lambda: 'dot')
    assert message(shapes.traits, 'dot') == "shape 'dot': needs='ink': write a tuple"


def test_a_registry_without_traits():
    assert message(Registry('plain').register, 'dot', round=True).endswith("'round'; write none")


def test_the_module_that_registers_is_remembered(shapes):
    """It counts who registers: the factory itself may be another library's."""
    shapes.register('line')(pathlib.Path)
    own = {'__name__': 'my_shapes', 'shapes': shapes}
    exec("@shapes.register('dot')\ndef dot(): pass\n", own)
    assert shapes.module_of('dot') == 'my_shapes' and shapes.module_of('line()') == __name__
    assert registered_by('my_shapes') == {'dot'}
    assert registered_by(__name__) == {'square', 'disk', 'line'}
    assert {'shape': shapes} == registry.REGISTRIES


# The registries of the package


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(ssl_extract.__path__, 'ssl_extract.')]


def test_every_entry_says_what_it_does_and_what_it_is():
    for name in modules():
        importlib.import_module(name)
    own = {  # without what tests and doctests registered
        (kind, name): entry
        for kind, entries in registry.REGISTRIES.items()
        for name, entry in entries.entries.items()
        if entry.module in modules() and entry.module != registry.__name__
    }
    kinds = {kind for kind, _ in own}
    assert {'loss', 'defense', 'attack', 'query plan', 'query strategy', 'recovery'} <= kinds
    assert {'encoder', 'head', 'augmentation', 'optimizer', 'schedule', 'endpoint'} <= kinds
    for (kind, name), entry in own.items():
        assert (entry.factory.__doc__ or '').strip(), f'{kind} {name} has no docstring'
        assert set(entry.traits) <= set(registry.REGISTRIES[kind].defaults)
        traits = registry.REGISTRIES[kind].traits(name)
        assert set(traits._fields) == set(registry.REGISTRIES[kind].defaults)


def test_the_rooms_register_in_one_manner():
    from ssl_extract import (
        attacks,
        augment,
        defenses,
        encoders,
        losses,
        recovery,
        strategies,
        training,
        users,
        victims,
    )
    from ssl_extract.victims import endpoints

    for register, entries in [
        (losses.register, losses.LOSSES),
        (defenses.register, defenses.DEFENSES),
        (attacks.register, attacks.ATTACKS),
        (attacks.register_plan, attacks.PLANS),
        (strategies.register, strategies.STRATEGIES),
        (recovery.register, recovery.RECOVERIES),
        (encoders.register, encoders.ENCODERS),
        (encoders.register_head, encoders.HEADS),
        (augment.register, augment.AUGMENTATIONS),
        (users.register, users.USERS),
        (users.register_model, users.MODELS),
        (victims.register, victims.VICTIMS),
        (endpoints.register, endpoints.ENDPOINTS),
        (training.register_optimizer, training.OPTIMIZERS),
        (training.register_schedule, training.SCHEDULES),
    ]:
        assert register == entries.register


# Names are not asked about: what others must know is a trait.

READERS = {  # modules that may take a spec apart, and why
    'data/loading.py': 'a data set is written like a call, its name may be one of TFDS',
    'report/settings.py': 'groups rows of old runs, whose own modules are not imported',
    'sweeps/slurm.py': 'what a job gets is written as the arguments of a call',
    'report/figures/pareto.py': 'writes only the arguments that differ beside a point',
}
SPELLED = {  # (module, name) that is compared with, and why
    ('cli/__init__.py', 'replace'): 'how Python writes what it cannot encode',
    ('pipeline/rows.py', 'once'): 'what is usual is left out of the label of a run',
    ('pipeline/rows.py', 'random'): 'what is usual is left out of the label of a run; a role',
    ('report/figures/accuracy.py', 'random'): 'a role',
    ('report/figures/forest.py', 'random'): 'a role',
    ('testing/defenses.py', 'representation'): 'which answers the check makes up',
    ('api/training.py', 'representation'): 'what an attack asks for where it does not matter',
    ('defenses/similarity.py', 'projection'): 'an argument of the guard',
}
ASKED = ('attack', 'query plan', 'query strategy', 'recovery', 'defense', 'endpoint')


def trees():
    for path in sorted(PACKAGE.rglob('*.py')):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def test_only_the_registry_takes_specs_apart():
    readers = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split('.')[-1] == 'parse_call'
    }
    assert 'registry.py' in readers and readers - {'registry.py'} <= set(READERS)


def test_no_name_is_compared_with_a_literal():
    for name in modules():
        importlib.import_module(name)
    names = {name for kind in ASKED for name in registry.REGISTRIES[kind]}
    spelled = {
        (module, part.value)
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and 'needs' not in ast.unparse(node)  # that is a trait
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value in names
    }
    assert spelled <= set(SPELLED)
