"""What bfloat16 costs in accuracy: victims and surrogates in both types, on CIFAR-10.

    python launch.py --config=experiments/bfloat16_cpu.py --config.data.dir=DIR

DIR holds a TFDS copy of cifar10. A victim is pretrained by SimCLR for 10 epochs on 10,000 images of
16 x 16 pixels, in float32 and in bfloat16, and stolen with 4,000 queries by a surrogate of its own
type; a surrogate in bfloat16 of the victim in float32 stands beside them. Five seeds, of victim
and attack; the comparisons are paired seed by seed. Some twenty minutes of one CPU core.
"""

from ssl_extract import config

SEEDS = (1, 2, 3, 4, 5)
MARGIN = 0.02
EXACT = 'resnet18(stem="patch", width=16, stages=(1, 1, 1))'
ROUNDED = 'resnet18(stem="patch", width=16, stages=(1, 1, 1), dtype="bfloat16")'
CONDITIONS = {  # victim, surrogate
    'float32': (EXACT, EXACT),
    'bfloat16': (ROUNDED, ROUNDED),
    'surrogate alone': (EXACT, ROUNDED),
}


def get_config():
    c = config.base()
    c.data.name = 'cifar10'
    c.data.size = 16
    c.victim.encoder = EXACT
    c.victim.method = 'simclr(temperature=0.5, hidden=256, dim=128)'
    c.victim.augmentation = (
        'random_resized_crop(scale=(0.2, 1.0)) | flip(p=0.5) | '
        'color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)'
    )
    c.victim.split = 'train[:10000]'
    c.victim.epochs = 10
    c.victim.batch_size = 256
    c.victim.learning_rate = 5e-3
    c.victim.schedule = 'cosine(warmup=0.05)'
    c.attack.loss = 'mse'
    c.attack.split = 'train[10000:30000]'
    c.attack.budget = 4_000
    c.attack.epochs = 10
    c.attack.batch_size = 64
    c.attack.learning_rate = 1e-3
    c.baselines.scratch_epochs = 0
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0))'
    c.evaluation.tasks = ('cifar10(train="train[40000:44000]")',)
    conditions = {name: overrides(*types) for name, types in CONDITIONS.items()}
    c.runs = tuple(
        {'seed': s, 'victim.seed': s, **each} for s in SEEDS for each in conditions.values()
    )
    c.report.comparisons = tuple(
        {
            'name': f'{role}: {name} against float32',
            'new': {'role': role, **conditions[name]},
            'old': {'role': role, **conditions['float32']},
            'task': 'cifar10',
            'margin': MARGIN,
        }
        for role, name in (
            ('victim', 'bfloat16'),
            ('surrogate', 'bfloat16'),
            ('surrogate', 'surrogate alone'),
        )
    )
    return c


def overrides(victim: str, surrogate: str) -> dict:
    """The overrides of a victim's and a surrogate's type."""
    return {'victim.encoder': victim, 'attack.encoder': surrogate}
