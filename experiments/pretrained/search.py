"""Search for news: texts in the tokens of a pretrained encoder, and the precision of results.

Sentence encoders are bought for search: the answers to the texts of an archive are kept, and a text
finds those whose answers have the largest cosine to its own. experiments/text_cpu.py names this
file in `modules`. It registers two sets and a metric:

    data.name = 'news("wordllama")'  # of data.dir; or 'questions("minilm")'
    evaluation.tasks = ('news("wordllama", train="all[:1600]", test="all[1600:3600]")',)
"""

import os

import numpy as np

from ssl_extract import data, evaluation
from ssl_extract.errors import UserError
from ssl_extract.evaluation import intervals, knn

from . import minilm, wordllama

LENGTH, RESULTS = 64, 10  # tokens of a text, longer ones are cut; results of a search
# The module of each encoder, and whether its texts have the tokens that its tokenizer adds.
ENCODERS = {'wordllama': (wordllama, False), 'minilm': (minilm, True)}


@data.register('news')
def news(encoder: str, *, split: str, data_dir: str) -> data.Dataset:
    """Reads the test file of AG News, 7,600 texts of 4 classes, in an encoder's tokens.

    Args:
        encoder: 'wordllama' or 'minilm'.
        split: a slice of 'all'.
        data_dir: the folder of ag_news_test.csv.
    """
    return _read(encoder, os.path.join(data_dir, 'ag_news_test.csv'), split)


@data.register('questions')
def questions(encoder: str, *, split: str, data_dir: str) -> data.Dataset:
    """Reads the training file of TREC, 5,452 questions of 6 classes, in an encoder's tokens.

    Args:
        encoder: 'wordllama' or 'minilm'.
        split: a slice of 'all'.
        data_dir: the folder of TREC.train.all.
    """
    return _read(encoder, os.path.join(data_dir, 'TREC.train.all'), split, 'encoding="latin-1"')


def _read(encoder: str, path: str, split: str, *options: str) -> data.Dataset:
    if encoder not in ENCODERS:
        raise UserError(f'encoder={encoder!r}: write {" or ".join(map(repr, ENCODERS))}')
    module, added = ENCODERS[encoder]
    settings = f'length={LENGTH}, cut=True, special_tokens={added}'
    arguments = ', '.join((repr(path), repr(module.tokenizer()), settings, *options))
    return data.load(f'text_lines({arguments})', split)


@evaluation.register_metric(
    'precision', share=True, title=f'Precision of {RESULTS} results', better='larger'
)
def precision(features: evaluation.Features) -> evaluation.Measurement:
    """Measures the share of results that have the class of the text that finds them.

    Each test text finds the ten training texts with the largest cosine.
    """
    _, rows = knn.neighbors(features.test, features.train, RESULTS)
    right = features.train_labels[rows] == features.test_labels[:, None]
    return intervals.mean(np.mean(right, axis=1))
