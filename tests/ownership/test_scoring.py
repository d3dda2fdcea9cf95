"""Scores of suspects: verdicts, what they stand on, what is kept, refusals before any work."""

import os

import numpy as np
import pytest
import scipy.stats

import ssl_extract
from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.identity import content_of
from ssl_extract.ownership import Evidence
from ssl_extract.report.significance import holm

RNG = np.random.default_rng(3)
PUBLIC = RNG.normal(size=(60, 8)).astype(np.float32)
PRIVATE = RNG.normal(size=(30, 8)).astype(np.float32)
MAPS = RNG.normal(size=(40, 8, 4)).astype(np.float32)


def encoder(number, copied=0.0):
    """A linear encoder; of a copy, most of it is the victim's, which is number 0."""
    kernel = copied * MAPS[0] + (1 - copied) * MAPS[number]
    return lambda inputs: inputs @ kernel


def group(numbers, copied=0.0):
    return {f'e{number}': encoder(number, copied) for number in numbers}


SUSPECTS = {**group(range(1, 4)), 'copy': encoder(4, copied=0.9)}


@pytest.fixture(autouse=True)
def tests(registries_restored):
    """Tests of each kind: of a null among independents, of one over secrets, one that refuses."""

    @ownership.register('agreement', needs=('public',), null='inputs')
    def agreement(least: int = 0):
        def test(case, suspect):
            a, b = (f(case.public) for f in (case.victim, suspect))
            if least > len(case.public):
                raise UserError('too few')
            return Evidence(np.float32(np.corrcoef(a.ravel(), b.ravel())[0, 1]), np.int64(60), 0.0)

        return test

    @ownership.register('beyond', needs=('public', 'independents'))
    def beyond():
        def test(case, suspect):
            own = agreement()(case, suspect).statistic
            return Evidence(
                own - max(agreement()(case, f).statistic for f in case.independents), 60
            )

        return test

    @ownership.register('moved', needs=('conferrable',))
    def moved():
        return lambda case, suspect: Evidence(float(suspect(case.conferrable).mean()), 20)

    @ownership.register('secret', needs=('public', 'mark'), null='secrets')
    def secret():
        def test(case, suspect):
            gap = np.abs(suspect(case.public) - case.victim(case.public)).mean()
            return Evidence(-gap, 60, 0.001 if gap < case.mark['gap'] else 0.8)

        return test


def score_all(suspects=SUSPECTS, victim=None, **given):
    given = {'public': PUBLIC, 'independents': group(range(10, 34))} | given
    return ssl_extract.score(victim or encoder(0), suspects, **given)


def score(*args, **given):
    return [row for row in score_all(*args, **given) if row.role == 'suspect']


def test_each_independent_is_judged_by_the_others():
    rows = [row for row in score_all(tests=['agreement']) if row.role == 'independent']
    assert [row.encoder for row in rows] == list(group(range(10, 34)))
    statistics = [row.statistic for row in rows]
    for place, row in enumerate(rows):
        rest = statistics[:place] + statistics[place + 1 :]
        pooled = scipy.stats.ttest_ind([row.statistic], rest, alternative='greater')
        assert (
            row.p_value == pytest.approx(pooled.pvalue, rel=1e-3) and row.corrected == row.p_value
        )
        assert row.null == 'independents, m=23'
        assert row.verdict == ('stolen' if row.p_value < 0.05 else 'not shown')
    halves = [row for row in score_all(tests=['beyond']) if row.role == 'independent']
    assert [row.encoder for row in halves] == [f'e{n}' for n in range(10, 34) if (n - 10) % 4]
    assert {row.null for row in halves} == {'independents, m=17'}
    few = score_all(tests=['agreement'], independents=group(range(10, 18)))
    assert few[0].verdict != 'none' and few[-1].verdict == 'none'  # seven others are too few
    assert few[-1].null.startswith('7 independent encoders tell no')


def test_a_test_over_secrets_is_measured_on_independents():
    rows = score_all(tests=['secret'], mark={'gap': 0.5})[len(SUSPECTS) :]
    assert [row.p_value for row in rows] == [0.8] * 24 and {row.null for row in rows} == {'secrets'}


def test_a_copy_is_found_among_independents():
    rows = score(tests=['agreement'])
    statistics = [
        np.corrcoef((PUBLIC @ MAPS[0]).ravel(), f(PUBLIC).ravel())[0, 1]
        for f in [*SUSPECTS.values(), *group(range(10, 34)).values()]
    ]
    assert [r.statistic for r in rows] == pytest.approx(statistics[:4], abs=1e-5)
    for row in rows:  # the test of one draw against many, of another library
        pooled = scipy.stats.ttest_ind([row.statistic], statistics[4:], alternative='greater')
        assert row.p_value == pytest.approx(pooled.pvalue, rel=1e-3)
    assert [r.corrected for r in rows] == holm([r.p_value for r in rows])
    assert [r.verdict for r in rows] == ['not shown'] * 3 + ['stolen']
    assert {(r.null, r.n) for r in rows} == {('independents, m=24', 60)}


def test_a_test_that_compares_with_independents_is_judged_by_others():
    rows = score(tests=['beyond'])
    assert rows[-1].verdict == 'stolen' and rows[-1].null == 'independents, m=18'


def test_conferrable_inputs_reach_the_tests_and_count_as_content(tmp_path):
    how = {'tests': ['moved'], 'folder': tmp_path}
    for inputs in (PUBLIC[:20] + 1, PUBLIC[:20] - 1):
        rows = score(conferrable=inputs, **how)
        wanted = [f(inputs).mean() for f in SUSPECTS.values()]
        assert [row.statistic for row in rows] == pytest.approx(wanted, rel=1e-5)


def test_a_test_over_secrets_needs_no_independents():
    rows = score(independents=None, mark={'gap': 0.5})
    assert {row.test for row in rows} == {'agreement', 'secret'}  # all that have what they need
    first, second = rows[:4], rows[4:]
    assert [row.p_value for row in second] == [0.8, 0.8, 0.8, 0.001]
    assert [row.null for row in second] == ['secrets'] * 4 and second[-1].verdict == 'stolen'
    assert {row.verdict for row in first} == {'none'} and first[-1].statistic > 0.9
    assert {row.null for row in first} == {
        '0 independent encoders tell no false-positive rate of agreement: give 8 or more'
    }


def test_a_test_over_members_needs_no_independents_and_prefers_them():
    @ownership.register('member', needs=('public', 'private'), null='members')
    def member():
        return lambda case, suspect: Evidence(float(suspect(case.public).mean()), 90, 0.01)

    alone = score(private=PRIVATE, independents=None, tests=['member'])
    assert {(r.p_value, r.null, r.verdict) for r in alone} == {(0.01, 'members', 'stolen')}
    among = score(private=PRIVATE, tests=['member'])
    assert {row.null for row in among} == {'independents, m=24'}
    assert 0.01 not in {row.p_value for row in among}
    eight = score_all(private=PRIVATE, tests=['member'], independents=group(range(10, 18)))
    assert {row.p_value for row in eight if row.role == 'independent'} == {None}  # seven others


def test_shadows_that_can_show_nothing_are_no_null():
    @ownership.register('ranked', needs=('public', 'shadows'), null='shadows')
    def ranked():
        return lambda case, suspect: Evidence(float(suspect(case.public).mean()), 60, 1 / 21)

    def scored(suspects, shadows):
        given = {'independents': None, 'shadows': group(range(20, 20 + shadows))}
        return score(suspects, tests=['ranked'], **given)

    assert scored(group([1]), 20)[0].verdict == 'stolen'
    for suspects, shadows, least in (([1], 19, 20), ([1, 2], 20, 40)):
        with pytest.raises(UserError, match=f'{shadows} shadows .* give {least} shadows or more'):
            scored(group(suspects), shadows)


def test_a_refusal_is_shown_and_the_family_is_the_rest():
    bad = {**SUSPECTS, 'broken': lambda inputs: inputs * np.nan}
    rows = score(bad, tests=['agreement'])
    assert 'hold NaN' in rows[-1].null and rows[-1][3:8] == (None, None, None, None, 'none')
    assert rows[:4] == score(tests=['agreement'])
    alike = score(
        independents={f'i{n}': lambda x, n=n: x[:, :4] + 0 * n for n in range(9)},
        tests=['agreement'],
    )
    assert {row.verdict for row in alike} == {'none'} and 'tell no spread' in alike[0].null


def test_finished_encoders_are_not_run_again(tmp_path):
    calls = []

    def counted(number):
        def encode(inputs):
            calls.append(number)
            return encoder(number)(inputs)

        return encode

    others = {f'i{n}': counted(n) for n in range(10, 20)}

    def scored(**given):
        calls.clear()
        given = {'independents': others, 'tests': ['agreement'], 'folder': tmp_path} | given
        return score(**given), sorted(calls)

    first, ran = scored()
    assert ran == list(range(10, 20))
    assert scored() == (first, [])
    assert scored(suspects={'more': encoder(5)})[1] == []  # another family, the same null
    for change in (
        {'public': PUBLIC[:40]},
        {'victim': encoder(6)},
        {'tests': ['agreement(least=3)']},
        {'shadows': {'s': encoder(7)}},
    ):
        assert scored(**change)[1] == list(range(10, 20)), change
    for path in tmp_path.glob('*.json'):
        path.write_text(path.read_text().replace('"n": 60', '"n": 61'))
    with pytest.raises(UserError, match='remove it, and give the same command again'):
        scored()


def test_a_test_that_was_refused_runs_again_and_no_other(tmp_path):
    up, ran = str(tmp_path / 'up'), str(tmp_path / 'ran')  # not of the tests' content

    @ownership.register('passing', needs=('public',))
    def passing():
        def test(case, suspect):
            if not os.path.exists(up):
                raise UserError('the service did not answer')
            return Evidence(float(suspect(case.public).mean()), 60)

        return test

    @ownership.register('counted', needs=('public',))
    def counted():
        def test(case, suspect):
            with open(ran, 'a') as file:
                file.write('x')
            return Evidence(float(suspect(case.public).std()), 60)

        return test

    how = {'tests': ['passing', 'counted'], 'folder': tmp_path / 'kept'}
    first = score(**how)
    assert first[0].null.endswith('did not answer') and os.path.getsize(ran) == 28
    (tmp_path / 'up').touch()
    second = score(**how)
    assert second[0].p_value is not None and os.path.getsize(ran) == 28
    assert second[4:] == first[4:]


def test_the_address_of_an_encoder_as_a_function_is_that_of_its_weights():
    held = ssl_extract.victims.load('stored("digits_simclr")').encoder
    first = ownership.obfuscate('permute', held)
    before = content_of(first)
    first(np.zeros((1, *held.input_shape), np.float32))
    assert content_of(first) == before == content_of(ownership.obfuscate('permute', held))
    pair = [np.array([['a', {'b': 1}]], object) for _ in range(2)]
    assert content_of(pair[0]) == content_of(pair[1]) != content_of(pair[0].T)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'independents': group(range(10, 17))}, '7 independent encoders tell no false-positive'),
        (
            {'tests': ['beyond'], 'independents': group(range(10, 20))},
            'give 11 or more, one in 4 of which the test compares with',
        ),
        ({'public': PUBLIC[:9]}, 'has 9 public inputs: give 16 or more'),
        ({'private': PUBLIC[:30]}, '30 of the 60 public inputs public are among the private'),
        ({'private': PRIVATE[:, :4]}, 'cannot compare'),
        ({'conferrable': PUBLIC[:9], 'tests': ['moved']}, 'has 9 conferrable inputs'),
        ({'public': None}, 'no registered test needs only a victim'),
        ({'public': None, 'tests': ['agreement']}, "'agreement' needs public: give public="),
        ({'tests': ['agrement']}, "did you mean 'agreement'"),
        ({'tests': ['agreement(most=3)']}, 'it takes'),
        ({'suspects': {}}, 'there are no suspects'),
        ({'suspects': group([12])}, 'suspect e12 is the same as independent encoder e12'),
        ({'independents': {**group(range(10, 34)), 'twin': encoder(10)}}, 'twin is the same as'),
        ({'victim': encoder(11)}, 'independent encoder e11 is the same as the victim'),
        ({'suspects': {'x': 3}}, 'x: int is no encoder'),
        ({'suspects': {'two\nlines': encoder(1)}}, 'write printable text on one line'),
        ({'independents': {'\udcff': encoder(1)}}, 'write printable text on one line'),
        ({'suspects': {7: encoder(1)}}, '7 is no name of an encoder'),
        ({'suspects': 'nowhere'}, 'nowhere is not there'),
    ],
)
def test_refusals_come_before_any_work(given, said):
    def refuses(inputs):
        raise AssertionError('it was run')

    with pytest.raises(UserError, match=said) as raised:
        score(**{'suspects': {'never': refuses}} | given)
    assert '\n' not in str(raised.value)
