"""The public contract of an attack, on every registered one."""

import pytest

from ssl_extract import attacks, testing

VIEWS = {'plan': 'views(m=2)', 'query_augmentation': 'flip', 'student_augmentation': 'flip'}
CASES = {  # every registered name -> a spec with tiny heads, and what else is chosen
    'access_head': ('access_head(hidden=8)', {}),
    'cont_steal': ('cont_steal', {'student_augmentation': 'flip'}),
    'direct': ('direct', {}),
    'labels': ('labels', {}),
    'posteriors': ('posteriors', {'plan': 'online', 'query_augmentation': 'flip'}),
    'rda': ('rda(views=2)', VIEWS),
    'recreate_head': ('recreate_head(head="simclr(hidden=8, dim=8)")', VIEWS),
    'several_layers': ('several_layers(widths=(3, 1))', {}),
    'stolen_encoder': ('stolen_encoder(views=2)', {'student_augmentation': 'flip'}),
    'symmetrized': ('symmetrized(hidden=8, dim=8, bottleneck=4)', VIEWS),
}


def test_every_registered_attack_is_tested():
    assert set(CASES) == set(attacks.ATTACKS)


@pytest.mark.parametrize('name', CASES)
def test_contract(name):
    spec, chosen = CASES[name]
    testing.check_attack(spec, **chosen)
