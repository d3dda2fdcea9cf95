"""Every registered attack under one odd budget, a few seconds each; the tests' own.

`all_attacks.py:NAME` is one of them alone, `all_attacks.py:killed` those that are killed.
"""

import tiny

BUDGET = 137
VIEW = 'simclr(flip=0.0, min_scale=0.3)'
QUERIES = {'attack.query_augmentation': VIEW}
VIEWS = QUERIES | {'attack.student_augmentation': VIEW}
SIMSIAM = (
    'recreate_head(head="simsiam_projector(hidden=8, dim=8)", head_loss="symmetrized", '
    'predictor="simsiam_predictor(hidden=4, dim=8)", head_epochs=1.0)'
)
RUNS = {
    'direct': {'attack.name': 'direct'},
    'direct_online': {'attack.name': 'direct', 'attack.plan': 'online', **QUERIES},
    'direct_views': {
        'attack.name': 'direct',
        'attack.loss': 'supcon',
        'attack.plan': 'views(m=3)',
        **QUERIES,
    },
    'symmetrized': {'attack.name': 'symmetrized(hidden=8, dim=8, bottleneck=4)', **QUERIES},
    'recreate_head': {
        'attack.name': 'recreate_head(head="simclr(hidden=8, dim=8)", head_epochs=2.0)',
        **QUERIES,
    },
    'recreate_simsiam_head': {'attack.name': SIMSIAM, 'attack.loss': 'mse', **QUERIES},
    'access_head': {'attack.name': 'access_head(hidden=8)'},
    'labels': {'attack.name': 'labels'},
    'posteriors': {'attack.name': 'posteriors'},
    'several_layers': {'attack.name': 'several_layers'},
    'stolen_encoder': {'attack.name': 'stolen_encoder(views=2)'},
    'cont_steal': {'attack.name': 'cont_steal', **VIEWS},
    'rda': {
        'attack.name': 'rda(views=2)',
        'attack.plan': 'views(m=4)',
        'attack.epochs': 4,
        **VIEWS,
    },
    'kcenter': {'attack.name': 'direct', 'attack.strategy': 'kcenter(rounds=2)'},
    'consistency': {'attack.name': 'direct', 'attack.strategy': 'consistency(rounds=2)'},
    'knockoff': {'attack.name': 'posteriors', 'attack.strategy': 'knockoff(rounds=2)'},
    'stay_close': {'attack.name': 'direct', 'attack.strategy': 'stay_close(rounds=2)'},
    'repeat': {'attack.name': 'direct', 'attack.plan': 'repeat(m=2)'},
    'near_duplicates': {'attack.name': 'direct', 'attack.plan': 'near_duplicates(m=2)'},
    'sybils': {
        'attack.name': 'direct',
        'attack.accounts': 2,
        'attack.overlap': 20,
        'attack.recover': 'drop_outliers | denoise',
        'baselines.scratch_epochs': 1,
        'defense': 'similarity_guard(threshold=0.99, capacity=32, then="") | '
        'bucket_coverage(bits=3) | orthogonal',
    },
    'guarded_online': {
        'attack.name': 'direct',
        'attack.plan': 'online',
        'defense': 'rate_limit(total=120) | '
        'similarity_guard(threshold=0.9, capacity=32, then="refuse") | bucket_coverage(bits=3)',
        **QUERIES,
    },
    'noise': {'attack.name': 'direct', 'attack.data': 'noise', 'attack.split': 'train[:150]'},
    'another_student': {
        'attack.name': 'direct',
        'attack.encoder': 'vit(depth=1, width=16, heads=2, patch=4)',
    },
}
KILLED = ('sybils', 'guarded_online')  # online behind defenses
# A teacher that moves, two phases, a loss of the whole batch.
KINDS = (*KILLED, 'rda', 'recreate_head', 'cont_steal')
OTHERS = ('symmetrized', 'access_head', 'labels', 'knockoff', 'stolen_encoder')  # at length


def get_config(name: str = ''):
    c = tiny.get_config()
    c.victim.encoder = (
        'resnet18(stem="patch", width=16, stages=(1,))'  # as golden rows: shared programs
    )
    c.attack.split = 'train[64:264]'
    c.attack.budget = BUDGET
    c.attack.epochs = 2
    c.baselines.scratch_epochs = 0
    c.baselines.random = False
    if name:  # to be killed
        c.training.checkpoint_every = 6
    names = {'': RUNS, 'killed': KILLED}.get(name, (name,))
    c.runs = tuple(RUNS[n] for n in names)
    return c
