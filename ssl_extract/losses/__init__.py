"""Losses of extraction.

    loss = losses.make('infonce(temperature=0.1)')     # or losses.infonce(temperature=0.1)

`LOSSES` is the registry; a new loss registers itself there from any module
(docs/how_to/add_a_loss.md).
"""

from ssl_extract.losses.base import LOSSES, Loss, make, masked_mean, prepare, register
from ssl_extract.losses.classification import bce, cross_entropy, softce
from ssl_extract.losses.conformance import check
from ssl_extract.losses.contrastive import infonce, softnn, supcon
from ssl_extract.losses.extraction import cont_steal, rda
from ssl_extract.losses.redundancy import barlow
from ssl_extract.losses.regression import (
    cosine,
    l1_cosine,
    l2,
    mse,
    symmetrized,
    wasserstein,
)
from ssl_extract.numerics import normalize

__all__ = [
    'LOSSES',
    'Loss',
    'barlow',
    'bce',
    'check',
    'cont_steal',
    'cosine',
    'cross_entropy',
    'infonce',
    'l1_cosine',
    'l2',
    'make',
    'masked_mean',
    'mse',
    'normalize',
    'prepare',
    'rda',
    'register',
    'softce',
    'softnn',
    'supcon',
    'symmetrized',
    'wasserstein',
]
