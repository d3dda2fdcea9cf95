"""What a stolen encoder is worth: probes on labeled tasks, and its fidelity to the victim.

This package sees encoders, features and labels, never a config. Every measure comes with a 95 %
interval, as a `Measurement`.

>>> import numpy as np
>>> labels = np.arange(60) % 3
>>> features = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
>>> predictions = knn_predict(features[:40], labels[:40], features[40:], num_classes=3, k=5)
>>> accuracy(predictions, labels[40:]).value
1.0
"""

from ssl_extract.evaluation.features import extract
from ssl_extract.evaluation.fidelity import agreement, compare
from ssl_extract.evaluation.intervals import Measurement, accuracy, bootstrap, wilson
from ssl_extract.evaluation.knn import fewshot, knn_predict
from ssl_extract.evaluation.probe import Probe, fit_probe, predict
from ssl_extract.evaluation.probe_sgd import fit_probe_sgd

__all__ = [
    'Measurement',
    'Probe',
    'accuracy',
    'agreement',
    'bootstrap',
    'compare',
    'extract',
    'fewshot',
    'fit_probe',
    'fit_probe_sgd',
    'knn_predict',
    'predict',
    'wilson',
]
