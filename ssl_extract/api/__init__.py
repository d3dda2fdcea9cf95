"""The facade for notebooks and programs: no config.

    victim = ssl_extract.victims.from_function(fn, dim=16)
    oracle = ssl_extract.make_oracle(victim, 'gaussian_noise(stddev=0.1)', budget=200)
    answers = ssl_extract.collect(oracle, inputs, folder='store')
    stolen = ssl_extract.steal(answers, encoder='resnet18(width=8)', loss='mse', epochs=5)
    rows = ssl_extract.evaluate(stolen, train=(x, y), test=(x2, y2), victim=victim)
    scores = ssl_extract.score(victim, 'suspects', public=x2, independents='independents')

Inputs are an array [N, ...] or a `data.Dataset`: uint8 images, which victims and encoders see as
floats in [0, 1], or floats, which they see as they are. Every function computes on all devices.
"""

from ssl_extract.api.asking import Answers, collect, make_oracle
from ssl_extract.api.measuring import evaluate, results
from ssl_extract.api.saved import export, load
from ssl_extract.api.scoring import score
from ssl_extract.api.shadows import train_shadows
from ssl_extract.api.training import pretrain, steal

__all__ = [
    'Answers',
    'collect',
    'evaluate',
    'export',
    'load',
    'make_oracle',
    'pretrain',
    'results',
    'score',
    'steal',
    'train_shadows',
]
