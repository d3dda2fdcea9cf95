"""Filters of a poisoned set, and repairs of the encoder: what is left of a backdoor.

    python -m experiments.filters_cpu --data_dir=DIR --workdir=DIR

A program, not a config. DIR holds a TFDS copy of cifar10. For each seed, the victim of
experiments/backdoors_cpu.py is pretrained by SimCLR on 10,000 images, 9 % of them with a patch.
Then filters take as many images out of the set as each other: PatchSearch, local outliers and
spectral signatures of the victim's representations, and chance; the victim is trained again on the
rest. The poisoned victim itself is pruned and fine-tuned on clean images. Written are `rows.csv`,
with the precision and recall of each filter, the accuracy on clean images and the share of
triggered images that are taken for the target class, and `table.md`, means over seeds. The same
command goes on after a stop.
"""

from absl import app, flags, logging

from experiments import backdoors_cpu
from ssl_extract.runtime import files, programs

from .study import COLUMNS, Sizes, Study, run, table

_DATA = flags.DEFINE_string('data_dir', '', 'Folder of prepared TFDS sets.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/filters', 'Of encoders and results.')
_SEEDS = flags.DEFINE_list('seeds', list(map(str, backdoors_cpu.SEEDS)), 'Of the victims.')


def main(argv: list[str]) -> None:
    """Runs the study for each seed."""
    del argv
    logging.set_verbosity(logging.WARNING)
    programs.keep()
    rows: list[dict[str, str]] = []
    for seed in map(int, _SEEDS.value):
        rows += run(Study(_WORKDIR.value, _DATA.value, seed, Sizes()))
        where = files.absolute(_WORKDIR.value)
        files.write_text(where / 'rows.csv', files.as_csv([COLUMNS, *(r.values() for r in rows)]))
        files.write_text(where / 'table.md', table(rows))
    print(table(rows))


if __name__ == '__main__':
    app.run(main)
