"""Tasks from descriptions, and tasks of one's own."""

import numpy as np
import pytest

from ssl_extract import data, evaluation
from ssl_extract.errors import UserError


def test_a_set_is_a_task_and_may_be_two():
    few, whole = evaluation.make_tasks(
        ['digits(name="few", train="train[:100]")', 'digits(test="test[10:20]")'], size=4
    )
    assert (few.name, whole.name) == ('few', 'digits')
    assert (few.train.name, few.test.name) == ('digits/train[:100]', 'digits/test')
    assert few.train.inputs.shape == (100, 4, 4, 3)
    np.testing.assert_array_equal(whole.test.inputs, few.test.inputs[10:20])


def test_two_tasks_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"^evaluation.tasks has 'digits' twice: write name="):
        evaluation.make_tasks(['digits', 'digits(train="train[:100]")'], field='evaluation.tasks')


def test_the_arguments_of_a_set_stand_beside_those_of_the_task(tmp_path):
    path = tmp_path / 'vectors.npz'
    np.savez(path, inputs=np.eye(20, 16), y=np.arange(20) % 3)
    (task,) = evaluation.make_tasks(
        [f'npz(path="{path}", labels="y", train="all[:60%]", test="all[60%:]")']
    )
    assert task.name == 'npz'
    assert (len(task.train.inputs), len(task.test.inputs), task.test.num_classes) == (12, 8, 3)
    with pytest.raises(UserError, match=r'2 of the 8 inputs of .*/all\[60%:\] are among those of'):
        evaluation.make_tasks(
            [f'npz(path="{path}", labels="y", train="all[:14]", test="all[60%:]")']
        )


def test_versions_and_configurations_reach_the_loader():
    asked = []

    def load(spec, split, *, size, data_dir):
        asked.append((spec, split, size, data_dir))
        return data.Dataset(np.ones((2, 3)) * len(asked), np.arange(2), 2, spec)

    tasks = evaluation.make_tasks(
        ['cifar10:3.0.2(train="train[:10]")', 'set/plain:1.0.0'], size=8, data_dir='d', load=load
    )
    assert [task.name for task in tasks] == ['cifar10:3.0.2', 'set/plain:1.0.0']
    assert asked[:2] == [('cifar10:3.0.2', 'train[:10]', 8, 'd'), ('cifar10:3.0.2', 'test', 8, 'd')]
    assert asked[3] == ('set/plain:1.0.0', 'test', 8, 'd')


def test_a_task_of_ones_own(registries_restored):
    @evaluation.register_task('parity')
    def parity(odd: int = 1, *, size):
        train, test = (data.load('digits', split, size=size) for split in ('train', 'test'))
        return evaluation.Task(
            'parity',
            *(d._replace(labels=(d.labels + odd) % 2, num_classes=2) for d in (train, test)),
        )

    one, other = evaluation.make_tasks(['parity', 'parity(odd=0, name="other")'], size=4)
    assert (one.name, other.name, one.test.num_classes) == ('parity', 'other', 2)
    assert one.train.inputs.shape == (1297, 4, 4, 3)
    np.testing.assert_array_equal(one.test.labels, 1 - other.test.labels)
    with pytest.raises(UserError, match="task 'parity.*unexpected keyword argument 'even'"):
        evaluation.make_tasks(['parity(even=1)'])


UNEQUAL = {'train': data.Dataset(np.ones((9, 2)), np.arange(9), 9, 'nine')}
UNEQUAL['test'] = data.Dataset(np.ones((3, 2)), np.arange(3), 3, 'three')


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('digits(tset="test")', r'\'tset\': it takes \(train="train", test="test"\)'),
        ('cifar10:3.0.2(path="x")', "unknown argument 'path'"),
        ('digits(name=3)', 'name=3: write a text'),
        ('digits(train="tran")', 'split .tran.'),
        ('noise(test="train[:9]")', 'noise/train has no labels'),
        ('digits(train="train"', 'cannot read task'),
        ('unequal', 'nine has 9 classes and three has 3'),
        ('digits(test="train")', '1297 of the 1297 inputs of digits/train are among those of'),
        ('digits(train="train[:1]")', 'has inputs of class . only: take a larger slice'),
        ('digits(train="train[:12]")', 'has no input of class 4, and digits/test has 50: take'),
        ('nothing', 'gives .*NoneType.*, not a Task'),
    ],
)
def test_wrong_tasks(registries_restored, spec, message):
    evaluation.register_task('unequal')(lambda: evaluation.Task('unequal', **UNEQUAL))
    evaluation.register_task('nothing')(lambda: None)
    with pytest.raises(UserError, match=message) as error:
        evaluation.make_tasks([spec], size=4)
    assert '\n' not in str(error.value)
