"""Images without and with a trigger, for the report."""

import numpy as np
from etils import epath

from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets


def pictures_of(run: Run, sets: Sets) -> str | None:
    """Keeps the first test images of the tasks on a change, before and after it.

    The arrays are those of `report.figures.triggers`.

    Args:
        run: the run.
        sets: the run's data.

    Returns:
        The folder of the arrays in the workdir; None where no task is on a change of images.
    """
    places = [place for place, task in enumerate(sets.tasks) if task.before is not None]
    if not places:
        return None
    tasks = [sets.tasks[place] for place in places]
    count = min(len(task.before) for task in tasks)
    spec = {'stage': 'triggers', 'tasks': [sets.tasks_spec[place] for place in places]}

    def make(folder: epath.Path) -> dict[str, np.ndarray]:
        del folder
        return {
            'before': np.stack([task.before[:count] for task in tasks]),
            'after': np.stack([task.test.inputs[:count] for task in tasks]),
            'tasks': np.array([task.name for task in tasks]),
        }

    stage.cached(run.workspace, 'triggers', spec, make, stage.ARRAYS)
    return f'triggers/{stage.address(run.workspace, spec)}'
