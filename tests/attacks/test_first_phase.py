"""The first phase of an attack in the pipeline: its own learning rate."""

import pytest
import tiny
import untrained
from etils import epath

from ssl_extract import attacks, config
from ssl_extract.pipeline import surrogate
from ssl_extract.pipeline.context import make_run
from ssl_extract.runtime import loggers, parallel


@pytest.mark.wide
def test_the_head_is_trained_at_the_rate_of_the_reference_and_the_surrogate_at_its_own(tmp_path):
    """1e-3 and 3e-4 in the reference code."""
    assert attacks.preset('recreate_head')['learning_rate'] == 3e-4
    base = tiny.get_config()
    base.attack.name = 'recreate_head(head="simclr(hidden=8, dim=8)", head_epochs=1.0)'
    base.attack.learning_rate, base.attack.epochs, base.runs = 3e-4, 1, ()
    (cfg,) = config.expand(base)
    run = make_run(cfg, tmp_path, parallel.data_mesh())
    extraction = untrained.extraction(run, untrained.victim(cfg.victim.encoder))
    surrogate.steal(run.workspace, extraction)
    (folder,) = epath.Path(tmp_path).glob('surrogate/*')
    rates = [
        loggers.read_parts(path / 'metrics')[0]['learning_rate']
        for path in (folder / 'before-000', folder)
    ]
    assert abs(rates[0] / 1e-3 - 1) < 1e-6 and abs(rates[1] / 3e-4 - 1) < 1e-6
