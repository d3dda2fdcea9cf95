"""What the study of filters does for one seed, and its table."""

import csv
import functools
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import ssl_extract
from experiments import backdoors_cpu
from ssl_extract import data, evaluation, ownership
from ssl_extract.encoders.trained import Encoder
from ssl_extract.evaluation.intervals import student
from ssl_extract.runtime import files, progress
from ssl_extract.victims import backdoors, outliers, patch_search

COLUMNS = ('seed', 'how', 'removed', 'precision', 'recall', 'accuracy', 'success')


class Sizes(NamedTuple):
    """The images and the networks of the study; the defaults are those of the study."""

    data: str = 'cifar10'
    side: int = 16
    private: str = backdoors_cpu.VICTIM['split']
    clean: str = 'train[30000:40000]'  # of those who repair
    labeled: str = backdoors_cpu.LABELED
    tested: str = 'test'
    trigger: str = backdoors_cpu.SMALL.triggers['patch'][0]
    rate: float = backdoors_cpu.SMALL.rate
    method: str = backdoors_cpu.METHODS['simclr']
    encoder: str = backdoors_cpu.VICTIM['encoder']
    epochs: int = backdoors_cpu.VICTIM['epochs']
    batch_size: int = backdoors_cpu.VICTIM['batch_size']
    window: int = 8
    clusters: int = 100
    flips: int = 500
    windows: int = 20  # that the classifier learns
    steps: int = 400  # of the classifier, and of fine-tuning
    share: float = 0.12  # of the set, which every filter removes; poison is 0.09 of it


class Study:
    """The encoders of one seed; each is trained once, and read from its folder afterwards.

    The folder is named by all settings, so that rows of other settings are never taken for these.
    """

    def __init__(self, workdir: str, data_dir: str, seed: int, sizes: Sizes):
        self.seed, self.sizes = seed, sizes
        target = backdoors_cpu.TARGET
        of = {**sizes._asdict(), 'target': target, 'victim': backdoors_cpu.VICTIM}
        self.where = files.absolute(workdir) / f'{seed}-{files.checksum(of)[:8]}'
        where = {'size': sizes.side, 'data_dir': data_dir}
        self.private, self.clean = (
            data.load(sizes.data, split, **where) for split in (sizes.private, sizes.clean)
        )
        self.poisoned = backdoors.poison(
            self.private, sizes.trigger, target=target, rate=sizes.rate
        )
        splits = f'train="{sizes.labeled}", test="{sizes.tested}"'
        backdoor = f'backdoor("{sizes.data}", trigger="{sizes.trigger}", target={target}, {splits})'
        self.tasks = evaluation.make_tasks([f'{sizes.data}({splits})', backdoor], **where)

    def pretrain(self, name: str, images: np.ndarray) -> Encoder:
        """Pretrains by the victim's recipe."""
        inputs = self.poisoned.dataset._replace(inputs=images, labels=None)
        return ssl_extract.pretrain(
            inputs,
            encoder=self.sizes.encoder,
            method=self.sizes.method,
            augmentation=backdoors_cpu.VICTIM['augmentation'],
            epochs=self.sizes.epochs,
            batch_size=self.sizes.batch_size,
            learning_rate=backdoors_cpu.VICTIM['learning_rate'],
            schedule=backdoors_cpu.VICTIM['schedule'],
            seed=self.seed,
            folder=self.where / name,
        )

    def victim(self) -> Encoder:
        """Returns the victim of the poisoned set."""
        return self.pretrain('victim', self.poisoned.dataset.inputs)

    def unpoisoned(self) -> Encoder:
        """Returns the victim of the same set without poison."""
        return self.pretrain('clean', self.private.inputs)

    def scores(self, how: str) -> np.ndarray:
        """Scores the images of the poisoned set by a filter: larger where it suspects poison."""
        images, sizes = self.poisoned.dataset.inputs, self.sizes
        if how == 'chance':
            return np.random.default_rng((self.seed, 1)).random(len(images))
        victim = self.victim()
        if how == 'PatchSearch':
            searched = patch_search.search(
                victim,
                images,
                window=sizes.window,
                clusters=sizes.clusters,
                flips=sizes.flips,
                seed=self.seed,
            )
            windows = searched.windows[: sizes.windows]
            return patch_search.classify(images, windows, steps=sizes.steps, seed=self.seed)
        rows = evaluation.represent((victim.network.apply, victim.variables), self.poisoned.dataset)
        if how == 'local outliers':
            return outliers.local_outliers(rows)
        groups = outliers.clusters(rows, 10, seed=self.seed)
        return outliers.spectral_signatures(rows, groups)

    def filtered(self, how: str) -> tuple[np.ndarray, Encoder]:
        """Returns the rows that a filter removes, and the victim of the other images."""
        path = self.where / 'removed' / f'{how}.npz'
        images = self.poisoned.dataset.inputs
        if not path.exists():
            count = round(self.sizes.share * len(images))
            files.write_npz(path, rows=outliers.removed(self.scores(how), count))
        rows = files.read_npz(path)['rows']
        return rows, self.pretrain(f'without {how}', np.delete(images, rows, axis=0))

    def repaired(self, chain: str) -> Encoder:
        """Returns the victim after a chain of changes of its weights, on clean images."""
        inputs = np.asarray(data.decoder(self.clean)(self.clean.inputs))
        return ownership.obfuscate(chain, self.victim(), inputs=inputs, seed=self.seed)

    def measure(self, encoder: Encoder) -> list[float]:
        """Measures the accuracy on clean images, and the success of the backdoor."""
        found = []
        for task in self.tasks:
            (row,) = ssl_extract.evaluate(
                encoder, train=task.train, test=task.test, metrics=('linear_probe',)
            )
            found.append(row['value'])
        return found


FILTERS = ('PatchSearch', 'local outliers', 'spectral signatures', 'chance')


def cases(study: Study) -> dict[str, Callable[[], list]]:
    """Lists what is measured: functions that return a row but for the seed and the name."""
    tune = (
        f'fine_tune(steps={study.sizes.steps}, method={study.sizes.method!r}, '
        f'augmentation={backdoors_cpu.VICTIM["augmentation"]!r})'
    )
    repairs = {
        'half pruned': 'prune(share=0.5)',
        'fine-tuned': tune,
        'half pruned, fine-tuned': f'prune(share=0.5) | {tune}',
    }

    def of(how: str) -> list:
        rows, encoder = study.filtered(how)
        found = outliers.found(rows, study.poisoned.rows)
        shares = [found.precision.value, found.recall.value]
        return [len(rows), *shares, *study.measure(encoder)]

    def plain(make: Callable[[], Encoder]) -> list:
        return ['', '', '', *study.measure(make())]

    found = {
        'poisoned victim': lambda: plain(study.victim),
        'victim without poison': lambda: plain(study.unpoisoned),
    }
    for how in FILTERS:
        found[f'filter: {how}'] = functools.partial(of, how)
    for how, chain in repairs.items():
        repair = functools.partial(study.repaired, chain)
        found[f'repair: {how}'] = functools.partial(plain, repair)
    return found


def run(study: Study) -> list[dict[str, str]]:
    """Measures all cases of one seed; each is kept once it is finished."""
    kept = []
    for how, measure in progress.progress(cases(study).items(), desc='cases', unit='case'):
        path = study.where / 'rows' / f'{how.replace(": ", " ")}.csv'
        if not path.exists():
            files.write_text(path, files.as_csv([COLUMNS, [study.seed, how, *measure()]]))
        kept += csv.DictReader(io.StringIO(path.read_text()))
    return kept


def table(rows: list[dict[str, str]]) -> str:
    """Writes means over seeds in per cent, with 95 % t-intervals where there are several."""
    shown = COLUMNS[3:]
    lines = [f'| What was done | {" | ".join(shown)} |', '| --- |' + ' ---: |' * len(shown)]
    for how in dict.fromkeys(row['how'] for row in rows):
        cells = []
        for column in shown:
            found = [100 * float(row[column]) for row in rows if row['how'] == how and row[column]]
            cells.append(f'{np.mean(found):.1f}' if found else '')
            if len(found) > 1:
                low, high = student(np.array(found))
                cells[-1] += f' ({low:.1f}–{high:.1f})'
        lines.append(f'| {how} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'
