"""Your own attack: the surrogate sees a mixture of two inputs and imitates the mixed answers.

Prints each clause of the contract that holds, then the share of the victim's linear-probe decisions
that the stolen encoder reproduces.
"""

import jax
import numpy as np

import ssl_extract
from ssl_extract import attacks, testing
from ssl_extract.training import Recipe


@attacks.register('mixup', plan='once', loss='mse')
def mixup(student, plan, loss, strength: float = 0.2) -> attacks.Attack:
    """Imitates mixtures of answers (the idea of Zhang et al., ICLR 2018, on answers)."""

    def prepare(batch, key, ask, account):
        asked = plan.ask(batch, key, ask, account, 1)
        weight = jax.random.beta(jax.random.fold_in(key, 1), strength, strength)
        mix = lambda rows: weight * rows + (1 - weight) * rows[::-1]  # noqa: E731
        batch = batch | {
            'inputs': mix(asked.queries[0]),
            'answers': mix(asked.answers[0]),
            'where': asked.where[0] & asked.where[0][::-1],
        }
        return batch, asked.account, asked.ledger

    mean = attacks.objective(student, loss)
    return attacks.Attack(Recipe(student.init, prepare, mean, student.heads))


def main() -> None:
    testing.check_attack('mixup')
    digits = ssl_extract.data.load('digits', 'train[:800]')
    matrix = np.random.default_rng(0).normal(size=(192, 16)).astype(np.float32) / 8
    victim = ssl_extract.victims.from_flax(
        lambda m, images: images.reshape(len(images), -1) @ m, matrix, input_shape=(8, 8, 3)
    )
    answers = ssl_extract.collect(ssl_extract.make_oracle(victim, budget=400), digits.inputs[:400])
    encoder = 'resnet18(stem="patch", width=16, stages=(1,))'
    stolen = ssl_extract.steal(answers, encoder=encoder, attack='mixup', epochs=20)
    train = (digits.inputs[:400], digits.labels[:400])
    test = (digits.inputs[400:], digits.labels[400:])
    rows = ssl_extract.evaluate(
        stolen, train=train, test=test, victim=victim, metrics=('agreement',)
    )
    print(f'agreement: {rows[-1]["value"]:.2f}')


if __name__ == '__main__':
    main()
