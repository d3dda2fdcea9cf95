"""The stated ranges of every registered factory's arguments, and calls just outside of them."""

import inspect
import math
import typing
from typing import Annotated

import pytest

from ssl_extract import attacks, checks, losses, ranges, training
from ssl_extract.cli import catalog
from ssl_extract.errors import UserError
from ssl_extract.ranges import Range

NO_NUMBERS = ('a', math.nan, math.inf, -math.inf, 1e300, -1e300, True, 1j, [1.0, 2.0, 3.0], {})


def kinds(annotation):
    """The types that an annotation is made of, with the ranges around each."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return [(parts[0], [r for r in annotation.__metadata__ if isinstance(r, Range)])]
    return [kind for part in parts for kind in kinds(part)] if parts else [(annotation, [])]


def arguments():
    """(registry, name, parameter) of each argument of numbers of the package's factories."""
    for registry in catalog.registries().values():
        for name in registry:
            if registry.module_of(name).startswith('ssl_extract.'):
                for parameter in checks.parameters_of(registry[name]).values():
                    if any(kind in (int, float) for kind, _ in kinds(parameter.annotation)):
                        yield pytest.param(registry, name, parameter, id=f'{name}-{parameter.name}')


ARGUMENTS = list(arguments())


def outside(kind, bounds):
    """The values next to the bounds of a range that the range leaves out."""
    step = 1 if kind is int else 1e-6
    if bounds.least is not None:
        yield bounds.least - step * max(1, abs(bounds.least) if kind is float else 1)
    if bounds.most is not None:
        yield bounds.most + step * max(1, abs(bounds.most) if kind is float else 1)
    yield from (bound for bound in (bounds.above, bounds.below) if bound is not None)


def wrong_values(annotation):
    """Values just outside of the ranges of an annotation, and values that are no such number."""
    numbers = [(kind, bounds) for kind, bounds in kinds(annotation) if kind in (int, float)]
    wrong = {value for kind, bounds in numbers for b in bounds for value in outside(kind, b)}
    several = typing.get_origin(annotation) is tuple
    values = [*wrong, *NO_NUMBERS, *([1.5] if numbers[0][0] is int else [])]
    wrapped = [
        (value,) if ... in typing.get_args(annotation) else (value, value) for value in values
    ]
    return [*wrapped, 0.5, 'ab'] if several else values


def call_with(factory, argument, value):
    """Calls a factory directly, with something for each argument that has no default."""
    given = {}
    for parameter in checks.parameters_of(factory).values():
        if parameter.default is parameter.empty:
            fitting = (v for v in ('train', 3, None) if ranges.accepts(parameter.annotation, v))
            given[parameter.name] = next(fitting)
    return factory(**given | {argument: value})


def test_there_are_such_arguments():
    assert len(ARGUMENTS) > 100


@pytest.mark.parametrize(('registry', 'name', 'parameter'), ARGUMENTS)
def test_every_number_has_a_stated_range(registry, name, parameter):
    for kind, stated in kinds(parameter.annotation):
        if kind in (int, float):
            assert stated, 'annotate it: Annotated[float, Range(above=0)]'
        if kind is int:  # without an upper bound a size fills the memory
            assert all(r.least is not None and r.most is not None for r in stated)
        for bounds in stated:
            inside = [b for b in (bounds.least, bounds.most) if b is not None]
            assert all(ranges.accepts(Annotated[kind, bounds], bound) for bound in inside)
    if parameter.default is not parameter.empty:
        assert ranges.accepts(parameter.annotation, parameter.default)


@pytest.mark.parametrize(('registry', 'name', 'parameter'), ARGUMENTS)
def test_values_just_outside_are_refused(registry, name, parameter):
    for value in wrong_values(parameter.annotation):
        with pytest.raises(UserError) as direct:
            call_with(registry[name], parameter.name, value)
        assert str(direct.value).startswith(f'{parameter.name} must be ')
        try:
            written = repr(value).replace('nan', '1e999').replace('inf', '1e999')
            registry.make(f'{name}({parameter.name}={written})')
        except UserError as error:
            assert '\n' not in str(error)
            assert str(error).split(': ', 1)[1].startswith(f'{parameter.name} must be '), error
        else:
            pytest.fail(f'{name}({parameter.name}={value!r}) was made')


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ('adam(b1=1.5)', 'b1 must be a finite number of at least 0 and below 1, got 1.5'),
        ('adam(b1=1)', 'b1 must be a finite number of at least 0 and below 1, got 1'),
        ('adam(b1=0.999999999)', 'b1 must be a finite number'),  # 1 in float32
        ('adam(b2=1.0)', 'b2 must be a finite number of at least 0 and below 1, got 1.0'),
        ('adam(weight_decay=-1)', 'weight_decay must be a finite number of at least 0, got -1'),
        ('adam(b1="0.9")', "b1 must be a finite number of at least 0 and below 1, got '0.9'"),
        ('sgd(momentum=-0.9)', 'momentum must be a finite number of at least 0 and below 1'),
        ('lars(weight_decay=1e-20)', 'got 1e-20; a number is 0, or from 1e-15 to 1e+15 in size'),
    ],
)
def test_optimizers_out_of_range(spec, said):
    with pytest.raises(UserError) as error:
        training.OPTIMIZERS.make(spec)
    assert said in str(error.value)


def test_a_head_of_no_epochs_is_refused():
    for epochs in (-1, 0, 0.0):
        with pytest.raises(UserError, match='head_epochs must be a finite number above 0'):
            attacks.ATTACKS.make(f'recreate_head(head_epochs={epochs})')


def test_a_factory_of_ones_own_is_checked_as_far_as_it_says(registries_restored):
    @losses.register('own')
    def own(
        scale: float = math.inf,
        power: 'int' = 2,
        where: str | None = None,
        free=1,
        share: Annotated[float, Range(above=0, below=1)] = 0.5,
    ):
        return scale, power, where, free, share

    assert own() == losses.make('own') == (math.inf, 2, None, 1, 0.5)
    assert own(-3, power=7, free=math.nan, share=0.25)[:2] == (-3, 7)
    assert own(math.inf)[0] == math.inf  # as its default
    for wrong, said in {
        'scale=-1e999': 'scale must be a finite number, got -inf',
        'scale="1"': "scale must be a finite number, got '1'",
        'power=2.0': 'power must be a whole number, got 2.0',
        'where=3': 'where must be a text or None, got 3',
        'share=1': 'share must be a finite number above 0 and below 1, got 1',
    }.items():
        with pytest.raises(UserError, match=said):
            losses.make(f'own({wrong})')
    assert own.__name__ == 'own' and list(inspect.signature(own).parameters)[0] == 'scale'


def test_annotations_for_a_type_checker_alone_are_not_read(registries_restored):
    @losses.register('lazy')
    def lazy(scale: 'Unknown' = 1.0):  # noqa: F821
        return scale

    assert losses.make('lazy(scale="a")') == 'a'
