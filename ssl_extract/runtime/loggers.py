"""Training metrics: numbered parts of a folder, and loggers.

A part holds the rows between two checkpoints and is written just before the later checkpoint, so
that the parts and the checkpoint agree after a restart. A part that is written twice has the same
content both times.

A logger gets the rows of a training while it runs. The parts hold the same rows: no result depends
on a logger.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.registry import Registry
from ssl_extract.runtime import files, hosts

Rows = list[dict[str, float]]


class Training(NamedTuple):
    """A training that a logger follows.

    Attributes:
        name: the training in a few words, such as 'surrogate direct mse 128'.
        folder: of the stage; a logger may keep files in a folder of its own name there.
        start: the first step of this process; 0, or the step of the checkpoint that it goes on
            from. A logger may have been given later steps before, by a process that was killed.
        num_steps: of the whole training.
    """

    name: str
    folder: epath.Path
    start: int
    num_steps: int


class Logger(NamedTuple):
    """A receiver of metrics.

    Attributes:
        write: `(rows)`; a row has `step` (from 0) and the step's metrics, by name. Each step is
            given once and in order.
        close: called when the training ends, however it ends.
    """

    write: Callable[[Rows], None]
    close: Callable[[], None] = lambda: None


LOGGERS = Registry('logger')
register = LOGGERS.register  # of `(training, ...) -> Logger`


@register('tensorboard')
def tensorboard(training: Training) -> Logger:
    """Writes scalars for TensorBoard: `tensorboard --logdir WORKDIR` shows all trainings.

    >>> import tempfile
    >>> training = Training('victim', epath.Path(tempfile.mkdtemp()), start=0, num_steps=1)
    >>> logger = LOGGERS.make('tensorboard', training=training)
    >>> logger.write([{'step': 0, 'loss': 1.0}])
    >>> logger.close()

    Args:
        training: the training.
    """
    from tensorboardX.event_file_writer import EventsWriter  # protobuf takes a moment
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    folder = training.folder / 'tensorboard' / '_'.join(training.name.split())
    folder.mkdir(parents=True, exist_ok=True)
    # The library's SummaryWriter hands rows to a thread, which a kill ends with them.
    events = EventsWriter(os.fspath(folder / 'events'), f'.{training.start:010d}.{os.getpid()}')
    # Steps that a killed process logged after its last checkpoint are hidden: they come again.
    purge = SessionLog(status=SessionLog.START)
    events.write_event(Event(step=training.start, wall_time=time.time(), session_log=purge))

    def write(rows: Rows) -> None:
        for row in rows:
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in row.items()
                if name != 'step'
            ]
            step, now = int(row['step']), time.time()
            events.write_event(Event(step=step, wall_time=now, summary=Summary(value=values)))
        events.flush()

    def close() -> None:
        events.close()

    return Logger(write, close)


@contextlib.contextmanager
def opened(chain: str, training: Training) -> Iterator[Callable[[Rows], None]]:
    """Opens the loggers of a chain, and gives the function that writes rows to all of them.

    Of several processes only the first has loggers.

    Args:
        chain: specs of `LOGGERS`, as in 'tensorboard | mine(every=10)'; '' is no logger.
        training: the training to follow.
    """
    with contextlib.ExitStack() as stack:
        loggers = LOGGERS.make_all(chain, training=training) if hosts.is_first() else []
        for logger in loggers:
            stack.callback(logger.close)

        def write(rows: Rows) -> None:
            for logger in loggers if rows else ():
                logger.write(rows)

        yield write


def write_part(folder: epath.Path, step: int, rows: list[dict[str, Any]]) -> None:
    """Writes the rows since the last part; `step` is the last of them."""
    files.write_jsonl(folder / f'part-{step:010d}.jsonl', rows)


def read_parts(folder: epath.Path) -> list[dict[str, Any]]:
    """Returns all rows so far, in order."""
    parts = files.find(folder, 'part-*.jsonl')
    return [row for part in parts for row in files.read_jsonl(part)]
