"""The comparisons of a config: which runs they are of, and what is refused before the runs."""

import pytest
import small
import tiny

from ssl_extract import config
from ssl_extract.errors import UserError
from ssl_extract.pipeline import comparisons
from ssl_extract.pipeline.context import make_run
from ssl_extract.pipeline.run import prepare

MSE, INFONCE = {'attack.loss': 'mse'}, {'attack.loss': 'infonce'}


def family_of(*listed, fixed=(), **fields):
    c = tiny.get_config()
    c.runs = config.grid(attack__loss=('mse', 'infonce'), attack__budget=(20, 41), seed=(1, 2))
    c.report.comparisons = listed
    c.update_from_flattened_dict({name.replace('__', '.'): v for name, v in fields.items()})
    runs = [make_run(run, 'nowhere', None) for run in config.expand(c, fixed)]
    ids = [f'{run.config.attack.loss} {run.config.attack.budget} {run.config.seed}' for run in runs]
    return comparisons.family_of(c, fixed, runs, ids, ['digits', 'noise'])


def compare(**keys):
    return {'name': 'a', 'new': MSE, 'old': INFONCE} | keys


def test_a_condition_is_all_runs_that_differ_from_it_in_the_seed_alone():
    (a,) = family_of(compare(old={**INFONCE, 'attack.budget': 20}, margin=0.01))
    assert [side[0].runs for side in (a.new, a.old)] == [
        ('mse 41 1', 'mse 41 2'),  # 41 is the budget of the config
        ('infonce 20 1', 'infonce 20 2'),
    ]
    assert (a.task, a.metric, a.margin, a.new[0].role) == (
        'digits',
        'linear_probe',
        0.01,
        'surrogate',
    )


def test_a_condition_may_name_a_role_a_user_or_several_runs():
    user = {'role': 'legitimate', 'user': 'broad', **MSE}
    best, users = family_of(
        compare(new=(MSE, INFONCE), old={'role': 'victim', **MSE}, task='noise'),
        compare(name='b', new=user, old={**user, **INFONCE}, metric='user_accuracy'),
    )
    assert [c.runs[0] for c in best.new] == ['mse 41 1', 'infonce 41 1']
    assert (best.old[0].role, best.task, best.margin) == ('victim', 'noise', None)
    assert users.new[0].user == 'broad' and users.metric == 'user_accuracy'


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'new': {'attack.loss': 'cosine'}}, r'\.new=.*cosine.*no run is this'),
        ({'new': {'attack.lose': 'mse'}}, r'\.new sets attack.lose=.*did you mean attack.loss'),
        ({'old': {**MSE, 'seed': 1}}, r'\.old names seed: leave it out'),
        ({'old': 'mse'}, r"\.old='mse': write the overrides of a run"),
        ({'old': ()}, r'\.old=\(\): write the overrides of a run'),
        ({'old': MSE}, 'compares runs with themselves: write two'),
        ({'old': {'role': 'thing', **MSE}}, r"\.old has role='thing': write victim"),
        ({'old': {'user': 'broad', **MSE}}, "role='surrogate' and user='broad'"),
        ({'old': {'role': 'legitimate', 'user': 'narrow', **MSE}}, "user='narrow': write"),
        ({'metric': 'accuracy'}, r"\.metric='accuracy': write .*linear_probe"),
        ({'task': 'svhn'}, r"\.task='svhn': write digits, noise"),
        ({'margin': 0}, r'\.margin must be .* above 0'),
        ({'margins': 0.1}, "has 'margins': known are name, new"),
        ({'name': ''}, r"\.name='': write a text"),
    ],
)
def test_a_wrong_comparison_is_refused_in_one_line(keys, message):
    with pytest.raises(UserError, match=rf'report\.comparisons\[1\].*{message}') as caught:
        family_of(compare(name='first'), compare(**keys))
    assert '\n' not in str(caught.value)


def test_a_comparison_lacks_no_key_and_shares_no_name():
    with pytest.raises(UserError, match=r"comparisons\[0\] has no 'old': write one"):
        family_of({'name': 'a', 'new': MSE})
    with pytest.raises(UserError, match='write a text that no other comparison has'):
        family_of(compare(), compare())
    with pytest.raises(UserError, match=r"report.comparisons\[0\]='a': write a dict"):
        family_of('a')


def test_a_field_of_the_command_line_wins_and_says_so():
    with pytest.raises(UserError, match='as the command line sets attack.loss'):
        family_of(compare(), fixed=('attack.loss',))
    (a,) = family_of(
        compare(new={**MSE, 'attack.budget': 20}), fixed=('attack.budget',), attack__budget=33
    )
    assert a.new[0].runs == ('mse 33 1', 'mse 33 2')


def test_an_experiment_with_a_comparison_of_no_run_is_refused_before_it_starts(tmp_path):
    c = small.get_config()
    c.report.comparisons = (compare(),)
    with pytest.raises(UserError, match=r'report.comparisons\[0\]\.old=.*no run is this'):
        prepare(c, tmp_path)
