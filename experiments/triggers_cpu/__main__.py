"""The search for a trigger that takes, with one small victim for each setting.

    python -m experiments.triggers_cpu --data_dir=DIR --workdir=DIR

A program, not a config. DIR holds a TFDS copy of cifar10. For each setting of `SETTINGS` an encoder
is pretrained by SimCLR on 10,000 images of 16 x 16 pixels with the trigger in some of the target
class, and measured on images with the trigger of the test. Printed, and written to `table.md`, are
the share of them that a linear probe takes for the target class, with its interval, and the
entanglement. The encoders are kept: the same command goes on after a stop. `--rows=0,3` takes some
settings.
"""

from absl import app, flags, logging

from ssl_extract.runtime import files, programs, progress

from .study import HEADER, SETTINGS, measure

_DATA = flags.DEFINE_string('data_dir', '', 'Folder of prepared TFDS sets.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/triggers', 'Of encoders and the table.')
_ROWS = flags.DEFINE_list('rows', [], 'Numbers of settings, from 0; none is all.')


def main(argv: list[str]) -> None:
    """Measures the settings and prints the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    programs.keep()
    chosen = [SETTINGS[int(row)] for row in _ROWS.value] or SETTINGS
    lines = [HEADER, '| --- | --- |' + ' ---: |' * 5]
    for setting in progress.progress(chosen, desc='settings', unit='victim'):
        lines.append(measure(setting, _WORKDIR.value, _DATA.value))
    files.write_text(files.absolute(_WORKDIR.value) / 'table.md', '\n'.join(lines) + '\n')
    print('\n'.join(lines))


if __name__ == '__main__':
    app.run(main)
