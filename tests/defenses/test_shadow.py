"""The owner's model of an attacker: trained as the defense says, or left untrained."""

import json

import jax
import numpy as np
import tiny
import untrained

from ssl_extract import config, defenses
from ssl_extract.pipeline import owner as owners
from ssl_extract.pipeline import services
from ssl_extract.pipeline.context import make_run
from ssl_extract.runtime import parallel


def test_the_longest_training_of_those_that_need_one():
    assert defenses.shadow_epochs('round | prediction_poisoning(epochs=0)') == 0
    assert defenses.shadow_epochs('prediction_poisoning') == 10
    assert defenses.shadow_epochs('round') == 0


def test_a_shadow_is_trained_for_the_epochs_of_its_defense(tmp_path):
    base = tiny.get_config()
    base.runs = ()
    (cfg,) = config.expand(base)
    run = make_run(cfg, tmp_path, parallel.data_mesh())
    owner, flops = untrained.owner(run, untrained.victim(cfg.victim.encoder)), []
    for epochs in (0, 1):
        spec = f'prediction_poisoning(epochs={epochs})'
        where = services.service_spec(run.workspace, owner, 'representation', spec)['shadow']
        shadow = owners.train_shadow(run.workspace, owner, epochs)
        flops.append(json.loads((tmp_path / 'shadow' / where / 'meta.json').read_text())['flops'])
        # the running statistics of BatchNorm before any batch are zeros and ones
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(shadow.variables['batch_stats'])]
        assert leaves and all(np.isin(leaf, (0, 1)).all() for leaf in leaves) == (epochs == 0)
    assert flops[0] == 0 < flops[1]
