"""The model of the largest experiment: published counts, and times in closed form."""

import dataclasses

import pytest

from benchmarks import largest

MACHINE = largest.Machine(
    peak=100.0,
    share=0.5,
    exact=10.0,
    exact_share=0.5,
    link=40.0,
    network=4.0,
    launch=2.0,
    host=2,
    decoded=10.0,
    disk=100.0,
)
OF = largest.Experiment(file=1.0)


def test_resnet50_has_the_published_operations_and_parameters():
    counts = largest.count(largest.Experiment(encoder='resnet50(stem="imagenet")'))
    assert counts.dim == 2048
    # torchvision: 4.09 billion multiplications and 25,557,032 parameters, with a classifier.
    assert counts.forward == pytest.approx(2 * 4.09e9, rel=0.03)  # without taps outside
    assert counts.params == 4 * (25_557_032 - 2048 * 1000 - 1000)


def test_a_step_of_resnet50_takes_three_forward_passes():
    counts = largest.Counts(dim=10, forward=7.0, train=21.0, params=1.0)
    ask, train, *_ = largest.parts(largest.Experiment(), counts, 500)
    assert ask.operations == 250_000 * 7.0 and train.operations == 100 * 250_000 * 21.0
    assert train.steps == 50_000 and train.images == 100 * 250_000


@pytest.mark.parametrize(
    ('part', 'devices', 'time', 'bound'),
    [
        (largest.Part('', 500.0), 1, 10.0, 'arithmetic'),
        (largest.Part('', 500.0), 4, 2.5, 'arithmetic'),
        (largest.Part('', 500.0, exact=True), 1, 100.0, 'arithmetic'),
        (largest.Part('', 500.0, exact=True), 4, 50.0, 'arithmetic'),  # each host's two do all
        (largest.Part('', 1.0, images=90.0), 2, 9.0, 'decoding'),
        (largest.Part('', 1.0, images=90.0), 3, 4.5, 'decoding'),  # by two hosts
        (largest.Part('', 1.0, images=10.0, moved=990.0), 1, 10.0, 'disk'),
        (largest.Part('', 500.0, steps=3, exchanged=80.0), 1, 10.0, 'arithmetic'),
        (largest.Part('', 500.0, steps=3, exchanged=80.0), 2, 6.0 + 3 * 1.0, 'launch'),
        (largest.Part('', 500.0, steps=3, exchanged=80.0), 4, 6.0 + 3 * 15.0, 'launch'),
    ],
)
def test_times(part, devices, time, bound):
    assert largest.seconds(part, OF, MACHINE, devices) == (pytest.approx(time), bound)


def test_the_tables_are_of_the_counted_programs():
    of = dataclasses.replace(
        largest.Experiment(), encoder='resnet18(stem="patch", width=4, stages=(1,))', side=8
    )
    lines = largest.report(of, largest.Machine(), largest.count(of), [1, 8], [64])
    (one,) = [line for line in lines if line.startswith('     1     64')]
    (eight,) = [line for line in lines if line.startswith('     8     64')]
    whole, each = largest.memory_line(of)
    assert 0 < each < 1e6 and 0 <= whole < 1e7
    assert one.endswith(' h') and eight.endswith(('min', ' h'))
    assert any(line.startswith('  share') for line in lines)
