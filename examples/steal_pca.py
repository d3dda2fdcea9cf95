"""Stealing a PCA of scikit-learn, which is no JAX function, behind a budget of 500 queries.

Prints the bill, then how well a linear probe reads the digits from the victim and from the stolen
encoder, and how often both agree. Measuring the victim asks it too: its row says how often.
"""

import sklearn.decomposition

import ssl_extract


def main() -> None:
    digits = ssl_extract.data.load('digits', 'train')
    owners, attackers = digits.inputs[:500], digits.inputs[500:1000]
    flat = lambda images: images.reshape(len(images), -1)  # noqa: E731
    pca = sklearn.decomposition.PCA(16).fit(flat(owners / 255))

    victim = ssl_extract.victims.from_function(lambda x: pca.transform(flat(x)), dim=16)
    oracle = ssl_extract.make_oracle(victim, 'gaussian_noise(stddev=0.05)', budget=500)
    answers = ssl_extract.collect(oracle, attackers)
    print(answers.bill)

    encoder = 'resnet18(stem="patch", width=16, stages=(1,))'
    stolen = ssl_extract.steal(answers, encoder=encoder, loss='mse', epochs=30, learning_rate=5e-3)
    test = ssl_extract.data.load('digits', 'test')
    rows = ssl_extract.evaluate(
        stolen,
        train=(owners, digits.labels[:500]),
        test=(test.inputs, test.labels),
        victim=victim,
        answers=answers,
        metrics=('linear_probe', 'agreement'),
    )
    for row in rows:
        print(f'{row["role"]}, {row["metric"]}: {row["value"]:.2f}, {row["queries_billed"]} billed')


if __name__ == '__main__':
    main()
