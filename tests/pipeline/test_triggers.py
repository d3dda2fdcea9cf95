"""Images without and with a trigger, from the task to the report."""

import json

import numpy as np
from finished_runs import write_run

from ssl_extract import config, evaluation, report
from ssl_extract.pipeline import context, triggers
from ssl_extract.pipeline.sets import load_sets
from ssl_extract.report import page, publish
from ssl_extract.report.figures.triggers import figure_triggers
from ssl_extract.runtime import files, parallel

TRIGGER = 'patch(size=4, anywhere=False)'


def where_of(folder, *tasks):
    cfg = config.base()
    cfg.data.name, cfg.evaluation.tasks = 'digits', ('digits', *tasks)
    cfg.runs = ({},)
    (one,) = config.expand(cfg)
    run = context.make_run(one, folder, parallel.data_mesh(1))
    where = triggers.pictures_of(run, load_sets(run))
    return where and run.workspace.folder / where / 'result.npz'


def test_pictures_are_the_tests_first_images_and_differ_in_the_trigger_alone(tmp_path):
    tasks = [f'backdoor("digits", trigger="{TRIGGER}", target={c}, name="to {c}")' for c in (3, 4)]
    arrays = files.read_npz(where_of(tmp_path, *tasks))
    assert arrays['tasks'].tolist() == ['to 3', 'to 4']
    assert arrays['before'].shape[:2] == (2, 4)
    moved = (arrays['before'] != arrays['after']).any(axis=(0, 1, 4))
    assert moved[-4:, -4:].all() and moved.sum() == 16
    (task,) = evaluation.make_tasks(tasks[:1])
    np.testing.assert_array_equal(arrays['after'][0][:, ..., :3], task.test.inputs[:4])


def test_a_run_without_a_trigger_has_no_pictures(tmp_path):
    assert where_of(tmp_path) is None


def test_a_report_shows_the_triggers_of_a_run(tmp_path):
    before = np.zeros((1, 2, 6, 6, 3), np.uint8)
    after = before.copy()
    after[..., -2:, -2:, 0] = 127
    values = {'before': before, 'after': after, 'tasks': np.array(['backdoor'])}
    files.write_npz(tmp_path / 'triggers' / 'a' / 'result.npz', **values)
    folder = write_run(tmp_path, 'r')
    about = json.loads((folder / 'run.json').read_text())
    (folder / 'run.json').write_text(json.dumps(about | {'shown': {'triggers': 'triggers/a'}}))
    read = publish.read_shown(report.read_runs(tmp_path))
    parts = {'config': {}, 'curves': {}, 'views': [], 'bill': [], 'title': 'Report'}
    (section,) = page.build([], shown=read, **parts).sections
    assert section.title == 'Triggers' and section.items[0].png.startswith(b'\x89PNG')
    figure, note = figure_triggers(read['triggers'])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 6 and '1.0 times' in note
    assert shown[4].max() == 254 and set(np.unique(shown[4][:4])) == {128}
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
        'as it is',
        'with the trigger',
        'difference',
    ]
