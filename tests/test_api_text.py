"""A text encoder pretrained, asked, stolen and measured, from a file to rows."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import ssl_extract
from ssl_extract import UserError, data

TOPICS = {
    'animals': ['cat', 'dog', 'cow', 'hen', 'fox'],
    'tools': ['saw', 'nail', 'axe', 'file', 'drill'],
}
COMMON = ['a', 'the', 'and', 'of', 'with']
BAG = 'bag_of_tokens(vocabulary=16, width=8)'


@pytest.fixture
def texts(tmp_path):
    """The description of a set of 400 texts of 2 to 7 words."""
    words = ['?', *COMMON, *sum(TOPICS.values(), [])]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, '?'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / 'words.json'))
    rng = np.random.default_rng(0)
    lines = [
        f'{topic} {" ".join(rng.choice([*TOPICS[topic], *COMMON], rng.integers(3, 8)))}'
        for topic in TOPICS
        for _ in range(400)
    ]
    (tmp_path / 'all.txt').write_text('\n'.join(dict.fromkeys(lines)))
    return f'text_lines("{tmp_path / "all.txt"}", "{tmp_path / "words.json"}", length=8)'


def test_a_text_encoder_is_stolen(texts):
    public, queries, train, test = (
        data.load(texts, f'all[{start}%:{start + 25}%]') for start in (0, 25, 50, 75)
    )
    how = {'encoder': BAG, 'batch_size': 32, 'learning_rate': 0.05}
    victim = ssl_extract.pretrain(public, augmentation='span_crop | token_dropout', epochs=2, **how)
    oracle = ssl_extract.make_oracle(victim, budget=100)
    few = queries._replace(inputs=queries.inputs[:100], labels=queries.labels[:100])
    answers = ssl_extract.collect(oracle, few)
    stolen = ssl_extract.steal(answers, loss='mse', epochs=20, **how)
    rows = ssl_extract.evaluate(
        stolen,
        train=train,
        test=test,
        victim=victim,
        answers=answers,
        metrics=('knn', 'cosine'),
    )
    values = {(row['role'], row['metric']): row['value'] for row in rows}
    assert answers.bill.billed == 100
    with pytest.raises(UserError, match='changes single numbers, and .* has tokens with padding'):
        ssl_extract.collect(oracle, few, plan='near_duplicates(m=2)')
    with pytest.raises(UserError, match='victim=.* has a vocabulary of 16, and .* the token 99'):
        ssl_extract.collect(oracle, few._replace(inputs=np.full((4, 8), 99, np.int32), labels=None))
    assert values['surrogate', 'knn'] > 0.9
    assert values['surrogate', 'cosine'] > 0.8  # -0.1 before training
