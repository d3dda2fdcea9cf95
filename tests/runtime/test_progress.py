"""Progress: rate and time left without the compilation, and what is used again."""

import time

import pytest
import small

from ssl_extract.pipeline import run
from ssl_extract.runtime import progress


@pytest.mark.parametrize('initial', [0, 40])
def test_rate_and_time_left_do_not_count_the_first_step(initial):
    with progress.progress(total=initial + 11, initial=initial) as bar:
        time.sleep(0.5)  # the compilation
        bar.update()
        for _ in range(5):
            time.sleep(0.01)
            bar.update()
        shown = bar.format_dict
    assert (bar.n, shown['n'] - shown['initial']) == (initial + 6, 5)  # five steps were measured
    assert 0.05 <= shown['elapsed'] < 0.4
    assert (shown['total'] - shown['n']) * shown['elapsed'] / 5 < 0.4  # five are left


def test_a_bar_over_things_counts_all_of_them():
    bar = progress.progress(range(7))
    assert list(bar) == list(range(7)) and bar.n == 7


def test_a_resumed_run_says_what_it_uses_again_with_or_without_a_logger(tmp_path, capsys):
    c = small.get_config()
    c.training.log_to = 'tensorboard'
    run.run(c, workdir=tmp_path)
    victim, answers, surrogate, folder = (
        one
        for kind in ('victim', 'answers', 'surrogate', 'runs')
        for one in (tmp_path / kind).iterdir()
    )
    trained = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob('events.out.*')}
    assert trained == {'victim', 'surrogate'}
    first = capsys.readouterr().err
    assert 'finished before' not in first and 'stored' not in first

    (folder / 'run.json').unlink()
    (surrogate / 'meta.json').unlink()
    progress._visited.clear()  # as in another process
    c.training.log_to = ''  # the same results
    run.run(c, workdir=tmp_path)
    assert (folder / 'run.json').exists() and (surrogate / 'meta.json').exists()
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert f'victim/{victim.name}: finished before' in lines
    assert f'answers/{answers.name}: 32 of 32 answers are stored' in lines
    assert not any(line.startswith('surrogate/') for line in lines)
    evaluations = [line for line in lines if line.startswith('evaluation/')]
    assert len(evaluations) == 2 and len(set(lines)) == len(lines)  # each once
