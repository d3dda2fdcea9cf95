"""Your own defense: it keeps a count in each account, and noise grows with what was asked.

Prints each clause of the contract that holds, then the error of the first and of the last answers
that one account gets.
"""

import jax
import jax.numpy as jnp
import numpy as np

import ssl_extract
from ssl_extract import defenses, testing


@defenses.register('growing_noise')
def growing_noise(rate: float = 0.01) -> defenses.Defense:
    """Gaussian noise whose deviation is `rate` times the number of the query."""

    def apply(outputs, count, *, inputs, where, keys):
        number = count + jnp.cumsum(where)  # padding is not counted
        noise = jax.vmap(lambda key: jax.random.normal(key, outputs.shape[1:]))(keys)
        return outputs + rate * number[:, None] * noise, where, count + jnp.sum(where)

    return defenses.Defense(lambda key, outputs, inputs: jnp.zeros([], jnp.int32), apply)


def main() -> None:
    testing.check_defense('growing_noise | round(decimals=2)')
    inputs = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    oracle = ssl_extract.make_oracle(lambda x: 2 * x, 'growing_noise(rate=0.01)', budget=400)
    answers = ssl_extract.collect(oracle, inputs)
    error = np.abs(answers.representations - 2 * inputs).mean(axis=1)
    print(f'first 50 answers: {error[:50].mean():.2f}, last 50: {error[-50:].mean():.2f}')


if __name__ == '__main__':
    main()
