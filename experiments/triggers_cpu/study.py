"""The settings of the search for a trigger, and the measurement of one."""

from typing import NamedTuple

from etils import epath

import ssl_extract
from experiments import backdoors_cpu
from ssl_extract import data, evaluation
from ssl_extract.runtime import files


class Setting(NamedTuple):
    """A victim: its trigger, that of the test, the share of poison, and the training."""

    placed: str
    shown: str
    rate: float  # 0 is a victim without poison
    epochs: int
    learning_rate: float


def _ctrl(magnitude: float, frequencies: tuple[int, int] = (7, 15)) -> str:
    return f'ctrl(magnitude={magnitude}, frequencies={frequencies}, window=16)'


P4, P5, P6, P8 = (f'patch(size={size})' for size in (4, 5, 6, 8))
LOW = _ctrl(200.0, (3, 7))
BLEND = 'blend(alpha=0.3)'
SETTINGS = (
    Setting(P4, P4, 0.0, 30, 2e-3),
    Setting(P4, P4, 0.01, 30, 2e-3),
    Setting(P4, P4, 0.05, 30, 2e-3),
    Setting(P5, P5, 0.05, 120, 2e-3),
    Setting(P8, P8, 0.0, 60, 2e-3),
    Setting(P8, P8, 0.05, 60, 2e-3),
    Setting(P8, P8, 0.05, 60, 5e-3),
    Setting(P6, P6, 0.09, 60, 5e-3),
    Setting(P8, P8, 0.09, 60, 5e-3),
    Setting(_ctrl(50.0), _ctrl(100.0), 0.0, 30, 2e-3),
    Setting(_ctrl(50.0), _ctrl(100.0), 0.05, 30, 2e-3),
    Setting(_ctrl(200.0), _ctrl(200.0), 0.05, 30, 2e-3),
    Setting(LOW, LOW, 0.0, 60, 2e-3),
    Setting(LOW, LOW, 0.05, 60, 2e-3),
    Setting(BLEND, BLEND, 0.05, 120, 2e-3),
    Setting(BLEND, 'blend(alpha=0.4)', 0.05, 120, 2e-3),
)
HEADER = '| Trigger | Of the test | Rate | Epochs | Learning rate | Success, % | Entanglement, % |'


def measure(setting: Setting, workdir: epath.PathLike, data_dir: str) -> str:
    """Pretrains the victim of a setting, or reads it, and returns its line of the table."""
    where = {'size': 16, 'data_dir': data_dir}
    poison = f'trigger="{setting.placed}", target={backdoors_cpu.TARGET}, rate={setting.rate}'
    name = f'poisoned("cifar10", {poison})' if setting.rate else 'cifar10'
    inputs = data.load(name, backdoors_cpu.VICTIM['split'], **where)._replace(labels=None)
    recipe = {
        'encoder': backdoors_cpu.VICTIM['encoder'],
        'method': backdoors_cpu.METHODS['simclr'],
        'augmentation': backdoors_cpu.VICTIM['augmentation'],
        'epochs': setting.epochs,
        'batch_size': backdoors_cpu.VICTIM['batch_size'],
        'learning_rate': setting.learning_rate,
        'seed': 1,
    }
    folder = files.absolute(workdir) / files.checksum([name, recipe])[:12]
    encoder = ssl_extract.pretrain(inputs, folder=folder, **recipe)
    trained = f'target={backdoors_cpu.TARGET}, train="{backdoors_cpu.LABELED}"'
    spec = f'backdoor("cifar10", trigger="{setting.shown}", {trained})'
    (task,) = evaluation.make_tasks([spec], **where)
    success, mixed = ssl_extract.evaluate(
        encoder, train=task.train, test=task.test, metrics=('linear_probe', 'entanglement')
    )
    shown = [
        f'{100 * row["value"]:.1f} ({100 * row["ci_low"]:.1f}–{100 * row["ci_high"]:.1f})'
        for row in (success, mixed)
    ]
    return '| ' + ' | '.join([*map(str, setting), *shown]) + ' |'
