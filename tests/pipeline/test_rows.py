"""What rows say of their metrics, and which encoders are measured as classifiers."""

import ast
import pathlib

import pytest

import ssl_extract
from ssl_extract import attacks, evaluation
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.pipeline import evaluate, rows
from ssl_extract.pipeline.stage import StageRecord, Trained
from ssl_extract.report import columns, defenses, metrics, summary, tables

REPORT = pathlib.Path(ssl_extract.__file__).parent / 'report'


def test_rows_carry_what_a_metric_declares(registries_restored):
    evaluation.register_metric('mine', share=True, title='My share', better='smaller')(len)
    evaluation.register_metric('theirs', fidelity=True)(len)
    noticed = {'guard.flags': 3.0, 'guard.ratio': float('nan')}
    record = StageRecord('surrogate', 'address', noticed=noticed)
    measured = [{'metric': name, 'value': 0.5} for name in ('mine', 'theirs', 'user_accuracy')]
    made = rows.complete(rows.encoder_rows(record, 'small', measured), 'run')
    said = {row['metric']: tuple(row[name] for name in columns.PRESENTATION) for row in made}
    assert said == {
        'mine': ('My share', 'share', 'smaller', ''),
        'theirs': ('', '', '', 'How alike the encoders are to the victim'),
        'user_accuracy': ('Accuracy of a user', 'share', 'larger', metrics.CHANGED),
        'noticed.guard.flags': ('guard.flags', None, None, metrics.NOTICED),
    }
    shown = metrics.shown(made)
    assert shown['mine'].heading == 'My share, % ↓' and shown['mine'].section == metrics.OTHER


@pytest.mark.parametrize('value', [55.0, -0.1])
def test_a_share_is_between_0_and_1(registries_restored, value):
    name = 'mine'
    evaluation.register_metric(name, share=True)(
        lambda features: evaluation.Measurement(value, value, value, 1)
    )
    features = evaluation.Features('task', *[None] * 4, 2, None)
    with pytest.raises(
        UserError, match=f"'mine' on 'task' is declared as a share and gives {value}"
    ):
        evaluation.measure(features, [name])


def test_better_values_are_larger_or_smaller():
    with pytest.raises(UserError, match="better='more'"):
        evaluation.register_metric('mine', better='more')


def test_the_report_asks_for_no_metric_by_its_name_but_those_of_its_own_words():
    own = {tables.PROBE, summary.FEW_SHOT, *defenses.METRICS}
    for path in {*REPORT.rglob('*.py')} - {REPORT / 'glossary.py'}:  # whose terms are the field's
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert not texts & {*evaluation.METRICS} - own, path


@pytest.mark.parametrize('classifies', [True, False])
def test_a_classifier_is_declared_and_not_known_by_the_name_of_a_head(classifies):
    head = 'mine' if classifies else 'classifier'
    spec = 'resnet18(stem="patch", width=4, stages=(1,))'
    encoder = Encoder(spec, {}, (8, 8, 1), ((head, 'linear(dim=10)'),), {head: {}})
    trained = Trained(encoder, StageRecord('surrogate', 'address'))
    subject = evaluate.subject_of(trained, classifies=classifies)
    assert (subject.classifier is not None) == classifies
    declared = {name for name in attacks.ATTACKS if attacks.ATTACKS.traits(name).classifies}
    assert declared >= {'labels', 'posteriors'} and 'direct' not in declared
