"""Your own training loop on collected answers, with a network from a spec.

The victim is a plain JAX function. Prints the loss of every tenth epoch, then saves the encoder
where `ssl_extract.load` finds it.
"""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ssl_extract
from ssl_extract.encoders import trained

SPEC = 'resnet18(stem="patch", width=16, stages=(1,))'  # gives 16 features


def main() -> None:
    images = ssl_extract.data.load('digits', 'train[:512]').inputs / np.float32(255)
    matrix = np.random.default_rng(0).normal(size=(192, 16)) / 10
    victim = lambda images: jnp.tanh(images.reshape(len(images), -1) @ matrix)  # noqa: E731
    answers = ssl_extract.collect(ssl_extract.make_oracle(victim, budget=512), images)

    network, tx = ssl_extract.encoders.make(SPEC), optax.adam(3e-3)
    variables = network.init(jax.random.key(0), images[:1])
    opt_state = tx.init(variables['params'])

    @jax.jit
    def step(variables, opt_state, inputs, targets):
        def loss(params):
            outputs, batch_stats = network.train({**variables, 'params': params}, inputs)
            return jnp.mean((outputs - targets) ** 2), batch_stats

        (value, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(variables['params'])
        updates, opt_state = tx.update(grads, opt_state)
        params = optax.apply_updates(variables['params'], updates)
        return {'params': params, 'batch_stats': batch_stats}, opt_state, value

    for epoch in range(20):
        for rows in np.random.default_rng(epoch).permutation(512).reshape(-1, 64):
            batch = answers.inputs[rows], answers.representations[rows]
            variables, opt_state, value = step(variables, opt_state, *batch)
        if epoch % 10 == 9:
            print(f'epoch {epoch + 1}: loss {value:.4f}')

    with tempfile.TemporaryDirectory() as folder:
        trained.save(folder, trained.Encoder(SPEC, variables, images.shape[1:]))
        print(f'loaded: {ssl_extract.load(folder).apply(images).shape}')


if __name__ == '__main__':
    main()
