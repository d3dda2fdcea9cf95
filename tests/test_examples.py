"""The examples run as they are, and print what their docstrings promise."""

import pathlib
import re
import runpy

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / 'examples'
LAST = {  # what the last line says, and the range of its number
    'load_elsewhere': ('accuracy: ', 0.5, 1.0),
    'own_attack': ('agreement: ', 0.5, 1.0),
    'own_data': ('which ring, dead_features: ', 0.0, 0.5),
    'own_defense': ('first 50 answers: .*, last 50: ', 2.0, 4.0),
    'own_loss': ('linear probe: ', 0.5, 1.0),
    'own_victim_method': ('after 12 epochs: linear probe ', 0.5, 1.0),
    'steal_a_service': ('client: ', 100, 100),
    'steal_pca': ('surrogate, agreement: ', 0.7, 1.0),
    'training_loop': ('loaded: ', 512, 512),
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob('*.py')} == set(LAST)


SHORT = ('own_loss', 'training_loop')  # the others are in `make test-wide`


@pytest.mark.parametrize(
    'name', [*SHORT, *(pytest.param(n, marks=pytest.mark.wide) for n in sorted({*LAST} - {*SHORT}))]
)
def test_an_example_runs_and_is_short(name, capsys, registries_restored):
    path = EXAMPLES / f'{name}.py'
    assert len(path.read_text().splitlines()) < 60
    assert runpy.run_path(str(path), run_name='__main__')['__doc__'].count('Prints ') == 1
    line = capsys.readouterr().out.splitlines()[-1]
    text, least, most = LAST[name]
    number = re.match(rf'{text}\(?([\d.]+)', line)
    assert number and least <= float(number.group(1)) <= most, line
