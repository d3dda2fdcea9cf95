"""Direct extraction: the surrogate is trained on the victim's representations themselves.

Algorithm 1 of "On the Difficulty of Defending Self-Supervised Learning against Model Extraction"
(ICML 2022, arXiv 2205.07890): minimise `loss(surrogate(x), victim(x))` over the surrogate.
"""

from collections.abc import Callable

from ssl_extract import encoders
from ssl_extract.attacks.base import ATTACKS
from ssl_extract.encoders import chain
from ssl_extract.training import Recipe

# Its settings on CIFAR-10: 9,000 queries, 100 epochs; the rate and batch of each loss.
PAPER = dict(
    optimizer='adam(weight_decay=1e-4)', schedule='cosine', plan='once', epochs=100, budget=9_000
)
PAPER_BY_LOSS = {
    'mse': dict(loss='mse', learning_rate=1e-3, batch_size=64),
    'wasserstein': dict(loss='wasserstein', learning_rate=1e-3, batch_size=64),
    'infonce': dict(loss='infonce(temperature=0.07)', learning_rate=3e-4, batch_size=256),
    'softnn': dict(loss='softnn(temperature=100.0)', learning_rate=1e-3, batch_size=256),
}


@ATTACKS.register('direct')
def direct(encoder: encoders.Network, prepare: Callable, loss: Callable, answer_dim: int) -> Recipe:
    """The surrogate imitates the answers under `loss`.

    A surrogate of another width than the answers has a linear adapter behind it while it trains;
    what is stolen is the encoder without it.

    Args:
        encoder: the surrogate's network.
        prepare: of the query plan; see `attacks.base`.
        loss: `(student [B, D], teacher [B, D], *, labels, where) -> f32[]`.
        answer_dim: D, the width of the oracle's answers.
    """
    networks = {'encoder': encoder}
    adapter = {'adapter': encoders.make_head(f'linear(dim={answer_dim})')}

    def init(key, images):
        same = encoders.dim(encoder, images.shape[1:]) == answer_dim
        return chain.init(networks if same else networks | adapter, key, images)

    def objective(params, batch_stats, batch):
        used = networks | (adapter if 'adapter' in params else {})
        outputs, batch_stats = chain.train(used, params, batch_stats, batch['images'])
        student = outputs[list(used)[-1]]
        value = loss(student, batch['answers'], labels=batch.get('labels'), where=batch['where'])
        return value, (batch_stats, {})

    return Recipe(init=init, prepare=prepare, objective=objective)
