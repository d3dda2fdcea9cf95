"""Your own pretraining method for victims: BYOL (Grill et al., NeurIPS 2020) in short.

The target network is an average of the trained ones. It lives among the statistics, which no
optimizer touches. Prints what a linear probe reads from the encoder after 1 epoch and after 12.
"""

import jax
import jax.numpy as jnp

import ssl_extract
from ssl_extract import encoders, losses, victims
from ssl_extract.encoders import chain
from ssl_extract.training import Recipe
from ssl_extract.victims.pretraining.base import prepare_two_views

SPEC = 'resnet18(stem="patch", width=16, stages=(1,))'


@victims.register('byol')
def byol(encoder, augmentation, hidden: int = 64, dim: int = 32, decay: float = 0.98) -> Recipe:
    """Predicts the target network's projection of another view; there are no negatives."""
    heads = {'projector': f'simclr(hidden={hidden}, dim={dim})', 'predictor': f'linear(dim={dim})'}
    networks = {'encoder': encoder} | {n: encoders.make_head(s) for n, s in heads.items()}
    compare = losses.cosine()

    def init(key, inputs):
        variables = chain.init(networks, key, inputs)
        target = {name: variables['params'][name] for name in ('encoder', 'projector')}
        statistics = variables['batch_stats'] | {'target': jax.tree.map(jnp.copy, target)}
        return {'params': variables['params'], 'batch_stats': statistics}

    def objective(params, batch_stats, batch):
        target, own = batch_stats['target'], dict(batch_stats)
        value = 0.0
        for view, other in (batch['views'], batch['views'][::-1]):
            goal, _ = chain.train({name: networks[name] for name in target}, target, own, other)
            outputs, own = chain.train(networks, params, own, view)
            value += compare(outputs['predictor'], jax.lax.stop_gradient(goal['projector']))
        online = {name: jax.lax.stop_gradient(params[name]) for name in target}
        own['target'] = jax.tree.map(lambda t, p: decay * t + (1 - decay) * p, target, online)
        return value, (own, {})

    return Recipe(init, prepare_two_views(augmentation), objective, tuple(heads.items()))


def main() -> None:
    digits = ssl_extract.data.load('digits', 'train[:900]')
    task = dict(train=(digits.inputs[:500], digits.labels[:500]), metrics=('linear_probe',))
    task['test'] = (digits.inputs[500:], digits.labels[500:])
    how = dict(encoder=SPEC, method='byol', augmentation='random_resized_crop(scale=(0.4, 1.0))')
    how |= dict(batch_size=64, learning_rate=5e-3)
    for epochs in (1, 12):
        encoder = ssl_extract.pretrain(digits.inputs[:512], epochs=epochs, **how)
        (row,) = ssl_extract.evaluate(encoder, **task)
        print(f'after {epochs} epochs: linear probe {row["value"]:.2f}')


if __name__ == '__main__':
    main()
