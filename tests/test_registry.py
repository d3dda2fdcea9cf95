import pytest

from ssl_extract.errors import UserError
from ssl_extract.registry import Registry, parse_call, split_chain


@pytest.fixture
def shapes():
    shapes = Registry('shape')

    @shapes.register('square')
    def square(side: float = 1.0, *, label: str = ''):
        if side < 0:
            raise UserError(f'side must be >= 0, got {side}')
        return ('square', side, label)

    @shapes.register('disk')
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
        ('square("a")', 'not supported'),  # TypeError inside the factory
        ('square(-1)', 'side must be >= 0, got -1'),  # UserError inside the factory
    ],
)
def test_wrong_arguments_name_the_spec_and_what_fits(shapes, spec, part):
    said = message(shapes.make, spec)
    assert said.startswith(f'shape {spec!r}: ') and part in said


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
