"""The study of proofs of theft: its cases, a tiny whole run, and the null of one method."""

import itertools

import numpy as np
import pytest
from ownership_cpu import __main__ as matrix
from ownership_cpu import one_method
from ownership_cpu.encoders import Sizes, Study
from ownership_cpu.suspects import MARKS, suspects_of

from ssl_extract import ownership
from ssl_extract.ownership import known_truth, verdict
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.ownership.scoring import Score
from ssl_extract.registry import parse_call


def test_the_study_of_ownership_has_enough_of_every_kind():
    study = Study('nowhere', '', Sizes())
    for name in (*matrix.VICTIMS, *MARKS):
        truths = suspects_of(study, name).truth
        budgets = {truth.queries for truth in truths.values() if truth.stolen}
        assert {500, 2_000, 8_000} <= budgets, name
        assert sum(truth.stolen for truth in truths.values()) >= 40, name
        assert sum(not truth.stolen for truth in truths.values()) >= 6, name
    kinds = {truth.how for truth in suspects_of(study, 'plain').truth.values()}
    assert {'mse', 'infonce', 'stolen_encoder', 'rda', 'cont_steal', 'symmetrized'} <= kinds
    assert study.sizes.num_others * 3 // 4 >= 24
    splits = [getattr(study.sizes, name) for name in ('private', 'shadows', 'attacker', 'others')]
    ends = [[int(e or 0) for e in split[len('train[') : -1].split(':')] for split in splits]
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(ends))
    registered = {parse_call(spec)[0] for spec in (*matrix.TESTS, *MARKS.values())}
    assert registered <= set(ownership.TESTS)


@pytest.mark.wide
def test_the_study_of_ownership_runs_whole_and_goes_on(tmp_path):
    tiny = 'resnet18(stem="patch", width=16, stages=(1,))'
    splits = {'private': '[:200]', 'shadows': '[200:450]', 'attacker': '[450:850]'}
    splits |= {'others': '[850:1100]', 'labeled': '[1100:1200]', 'public': '[1200:]'}
    sizes = Sizes(
        **{name: f'train{part}' for name, part in splits.items()},
        **dict(data='digits', side=8, tested='test', judged=90, encoder=tiny, deeper=tiny),
        **dict(other='vit(depth=1, width=8, heads=2, patch=4)', epochs=1, batch_size=64),
        **dict(view='random_resized_crop(scale=(0.2, 1.0))', num_shadows=8, num_others=16),
        **dict(num_same=1, seeds=1, budgets=((160, 1), (320, 1)), steps=2),
    )
    study = Study(str(tmp_path), '', sizes)
    matrix.run(study, matrix.STAGES)
    written = ('scores.csv', 'truth.csv', 'accuracy.csv', 'claims.csv', 'report/report.md')
    written += ('report_one_method/report.md',)
    before = {name: (tmp_path / name).read_bytes() for name in written}
    words = before['report/report.md'].decode()
    assert '| mse behind the mark, 320 queries |' in words and '## Detection' in words
    tests = {line.split(b',')[2] for line in before['scores.csv'].splitlines()[1:]}
    assert len(tests) > 10
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob('kept/*/*.json')}
    assert len(times) > 100
    matrix.run(study, ('score',))
    assert {name: (tmp_path / name).read_bytes() for name in written} == before
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob('kept/*/*.json')} == times


def test_a_null_of_two_methods_hides_a_theft_that_one_method_shows():
    rng = np.random.default_rng(0)
    drawn = {'simclr': rng.normal(0, 1, 16), 'byol': rng.normal(-20, 1, 8)}
    scores = [
        Score(f'{method}-{place}', 'independent', 'cka', value, 10, 0.5, null='independents, m=23')
        for method, values in drawn.items()
        for place, value in enumerate(values)
    ]
    scores += [
        Score('stolen', 'suspect', 'cka', 6.0, 10, 0.5, null='independents, m=24'),
        Score('refused', 'suspect', 'cka', None, 10, None),
        Score('marked', 'suspect', 'espew', 6.0, 10, 0.01, null='secrets'),
    ]
    truths = {name: Truth(True, 'mse', 500) for name in ('stolen', 'refused', 'marked')}
    both = {s.encoder: s for s in scores}['stolen']
    assert verdict.p_among(both.statistic, np.concatenate([*drawn.values()]).tolist()) > 0.05
    judged, known = one_method.rejudge(scores, truths, 'simclr')
    found = {s.encoder: s for s in judged}
    assert found['stolen'].verdict == 'stolen' and found['stolen'].null == 'independents, m=16'
    assert found['refused'].p_value is None and 'marked' not in found
    others = [s for s in judged if s.encoder.startswith('byol')]
    assert [known[s.encoder].stolen for s in others] == [False] * 8
    assert all(s.role == 'suspect' and s.p_value > 0.9 for s in others)
    (rates,) = known_truth.rates(judged, known)
    assert rates.uniform > 0.05 and rates.accused.n == 16
    assert (rates.found.value, rates.found.n) == (0.5, 2)  # what the test refuses is not found
