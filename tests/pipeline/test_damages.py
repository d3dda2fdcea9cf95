"""Every kind of file of a workdir, damaged: the same rows, or a line whose advice gives them.

`python -m benchmarks.damages` damages every file, in every way.
"""

import shutil

import damages
import pytest

READ = {  # the rooms of the files that a run reads at that stage and not at a later one
    'finished': ('runs', 'evaluation', 'victim'),
    'measured': ('evaluation', 'victim'),
    'asked': ('answers', 'surrogate'),
    'training': ('surrogate',),
}
# A kind of file and a damage of it that must be noticed, beside those that every kind gets in turn.
NOTICED = {
    'finished': [
        ('runs/*/rows.jsonl', damages.flipped),
        ('runs/*/bills.json', damages.key_dropped),
        ('runs/*/run.json', damages.key_dropped),
        ('victim/*/metrics/part-*', damages.flipped),
        ('victim/*/metrics/part-*', damages.deleted),
        ('evaluation/*/arrays.npz', damages.deleted),
    ],
    'measured': [
        ('evaluation/*/measured.json', damages.flipped),
        ('evaluation/*/arrays.npz', damages.key_dropped),
        ('victim/*/meta.json', damages.flipped),
        ('victim/*/meta.json', damages.key_dropped),
        ('victim/*/heads/manifest.ocdbt', damages.truncated),
    ],
    'asked': [
        ('answers/*/part-*', damages.flipped),
        ('answers/*/part-*', damages.key_dropped),
        ('answers/*/part-*', damages.deleted),
        ('answers/*/account-*', damages.flipped),
        ('surrogate/*/chosen/round-*', damages.truncated),
    ],
    'training': [
        ('surrogate/*/asked/part-*2.npz', damages.deleted),
        ('surrogate/*/asked/part-*4.npz', damages.key_dropped),
        ('surrogate/*/checkpoints/4/meta/metadata', damages.flipped),
        ('surrogate/*/checkpoints/4/state/manifest.ocdbt', damages.flipped),
    ],
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished workdir, whose name has all characters of a pattern."""
    workdir = tmp_path_factory.mktemp('workdirs') / 'finished [1]*?'
    damages.rows_of(workdir)
    return workdir


@pytest.mark.parametrize(
    'left',
    [
        'finished',
        'training',
        *(pytest.param(w, marks=pytest.mark.wide) for w in ('measured', 'asked')),
    ],
)
def test_the_same_rows_or_a_line_whose_advice_gives_them(finished, tmp_path, left):
    online = left == 'training'
    whole, workdir, elsewhere = (tmp_path / f'{name} [1]*?' for name in ('whole', 'w', 'elsewhere'))
    shutil.copytree(finished, whole)
    damages.unfinished(whole, left)
    noticed = {(next(whole.glob(pattern)), damage) for pattern, damage in NOTICED[left]}
    shutil.copytree(whole, workdir)
    expected = damages.rows_of(workdir, online)
    assert len(expected) > 5
    for path, damage in sorted({*damages.one_of_each_kind(whole, READ[left]), *noticed}, key=str):
        for folder in (workdir, elsewhere):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, workdir)
        elsewhere.mkdir()
        damage(workdir / path.relative_to(whole))
        rows, line = damages.after(workdir, elsewhere, online)
        assert rows == expected, (path, damage, line)
        assert line or (path, damage) not in noticed, (path, damage)
