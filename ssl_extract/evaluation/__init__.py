"""Evaluation of encoders: probes on labeled tasks, and fidelity.

This package sees encoders, features and labels, never a config. Every metric has a 95 % interval,
as a `Measurement`. `TASKS`, `METRICS` and `PROBES` are registries.

>>> import numpy as np
>>> labels = np.arange(60) % 3
>>> features = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
>>> predictions = knn_predict(features[:40], labels[:40], features[40:], num_classes=3, k=5)
>>> accuracy(predictions, labels[40:]).value
1.0
"""

from ssl_extract.evaluation.features import extract, represent
from ssl_extract.evaluation.fidelity import agreement, compare
from ssl_extract.evaluation.intervals import Measurement, accuracy, bootstrap, wilson
from ssl_extract.evaluation.knn import fewshot, knn_predict
from ssl_extract.evaluation.metrics import (
    METRICS,
    Features,
    measure,
    presentation,
    register_metric,
)
from ssl_extract.evaluation.probe import Probe, fit_probe, predict
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd
from ssl_extract.evaluation.probes import PROBES, register_probe
from ssl_extract.evaluation.tasks import (
    TASKS,
    Task,
    check_counts,
    check_task,
    make_task,
    make_tasks,
    register_task,
)

__all__ = [
    'Features',
    'METRICS',
    'Measurement',
    'PROBES',
    'Probe',
    'TASKS',
    'Task',
    'accuracy',
    'agreement',
    'bootstrap',
    'check_counts',
    'check_task',
    'compare',
    'extract',
    'fewshot',
    'fit_probe',
    'fit_probe_sgd',
    'knn_predict',
    'make_task',
    'make_tasks',
    'measure',
    'predict',
    'presentation',
    'register_metric',
    'register_probe',
    'register_task',
    'represent',
    'wilson',
]
