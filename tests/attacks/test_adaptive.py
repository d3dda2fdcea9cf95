"""Which attackers act against a defense."""

import pytest

from ssl_extract import attacks, strategies
from ssl_extract.errors import UserError


@pytest.mark.parametrize(
    ('fields', 'adaptive'),
    [
        ({}, False),
        ({'attack': 'rda(views=5)', 'plan': 'views(m=5)', 'strategy': 'kcenter(rounds=4)'}, False),
        ({'attack': 'direct(adapter=False)'}, False),
        ({'attack': 'direct(adapter=True)'}, True),
        ({'plan': 'repeat(m=2)'}, True),
        ({'plan': 'near_duplicates(m=2)'}, True),
        ({'strategy': 'stay_close(rounds=2)'}, True),
        ({'recover': 'harden'}, True),
        ({'recover': 'drop_outliers | denoise'}, True),
        ({'accounts': 2}, True),
    ],
)
def test_what_is_there_because_of_a_defense(fields, adaptive):
    assert attacks.is_adaptive(**{'attack': 'direct'} | fields) is adaptive


def test_a_third_partys_strategy_says_so_itself(registries_restored):
    strategies.register('hide', adaptive=True)(strategies.STRATEGIES['random'])
    assert attacks.is_adaptive(attack='direct', strategy='hide')
    strategies.register('stay_close_not')(strategies.STRATEGIES['random'])
    assert not attacks.is_adaptive(attack='direct', strategy='stay_close_not')


def test_an_unknown_name_is_not_passed_over():
    with pytest.raises(UserError, match="unknown query plan 'repeet': did you mean 'repeat'"):
        attacks.is_adaptive(attack='direct', plan='repeet')


def test_a_setting_that_no_attack_has_is_refused():
    with pytest.raises(UserError, match="unknown trait 'epoch'; write one of endpoint, adaptive"):
        attacks.register('mine', epoch=3)
