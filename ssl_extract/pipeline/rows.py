"""The rows of a run's results, and names of runs."""

import math
from typing import Any

from ssl_extract import attacks, evaluation
from ssl_extract.oracle.store import Bill
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.stage import StageRecord
from ssl_extract.report import columns, metrics

Rows = list[dict[str, Any]]
_USERS = {'unit': 'share', 'better': 'larger', 'section': metrics.CHANGED}
# The presentation of the pipeline's own metrics, which are no functions of an encoder's features.
_PRESENTATION = {
    'user_accuracy': _USERS | {'metric_title': 'Accuracy of a user'},
    'user_accuracy_plain': _USERS | {'metric_title': 'Accuracy on answers as they come'},
    'user_accuracy_clean': _USERS | {'metric_title': 'Accuracy on undefended answers'},
    'user_chance': _USERS | {'metric_title': 'Best constant guess'},
    'user_untrained': _USERS | {'metric_title': 'Accuracy on an untrained encoder'},
    'answer_change': {'metric_title': 'Answers moved, SD', 'section': metrics.CHANGED},
    'mark': {'metric_title': 'Mark in its answers (partial correlation)'},
    'mark_p_value': {'metric_title': 'p-value of the mark'},
}
METRICS = tuple(_PRESENTATION)  # of the pipeline's own


def encoder_rows(
    record: StageRecord, encoder: str, measured: list[dict[str, Any]], **condition: Any
) -> Rows:
    """Returns the rows of one encoder: the measurements and the defense's findings.

    Args:
        record: of the encoder's stage.
        encoder: the spec of its network.
        measured: dicts of task, metric, value, ci_low, ci_high, n.
        **condition: further columns, alike in all rows.
    """
    bill = record.bill
    if record.role in ('scratch', 'random'):
        bill = Bill(0, 0, 0, 0)
    common = {
        'role': record.role,
        'stage': record.address,
        'encoder': encoder,
        'seconds': record.seconds,
        'flops': record.flops,
        **({} if bill is None else bill.columns()),
        **condition,
    }
    measured = [*measured, *noticed_rows(record.noticed)]
    return [common | presentation(row['metric']) | row for row in measured]


def presentation(metric: str) -> dict[str, str]:
    """Returns the columns of a row that say how a report shows a metric; see `METRICS`."""
    return _PRESENTATION.get(metric) or evaluation.presentation(metric)


def noticed_rows(noticed: dict[str, float]) -> Rows:
    """Returns metric, value and presentation of what a defense knows of an account."""
    return [
        {
            'metric': f'noticed.{name}',
            'metric_title': name,
            'section': metrics.NOTICED,
            'value': value,
        }
        for name, value in noticed.items()
        if math.isfinite(value)  # not so before there was anything to notice
    ]


def complete(rows: Rows, run_id: str) -> Rows:
    """Returns the rows with all columns, in the schema's order.

    Args:
        rows: the rows.
        run_id: the run's id, for the column `run`.
    """
    return [{name: (row | {'run': run_id}).get(name) for name in columns.NAMES} for row in rows]


def condition_of(run: Run, billed: int) -> dict[str, Any]:
    """Returns the columns of the conditions under which a surrogate was stolen.

    Args:
        run: the run.
        billed: the queries on the attacker's bill.
    """
    c, a = run.config, run.config.attack
    return dict(
        attack=a.name,
        loss=a.loss,
        plan=a.plan,
        views=_views(a.query_augmentation, a.student_augmentation),
        strategy=a.strategy,
        data=a.data or c.data.name,
        endpoint=attacks.endpoint_of(a.name),
        defense=c.defense,
        adaptive=_adaptation(a.accounts, a.recover),
        is_adaptive=attacks.is_adaptive(
            attack=a.name,
            plan=a.plan,
            strategy=a.strategy,
            recover=a.recover,
            accounts=a.accounts,
        ),
        budget=a.budget,
        seed=c.seed,
        dollars=billed * c.cost.dollars_per_1000_queries / 1000,
    )


def name_of(run: Run) -> str:
    """Returns the name of a run in a few words."""
    return ', '.join(_words_of(run))


def curve_name_of(run: Run) -> str:
    """Returns the name of a run in a few words, as the title of its training curve."""
    attack, *rest = _words_of(run)
    return f'{attack}: {", ".join(rest)}'


def _words_of(run: Run) -> list[str]:
    c, a = run.config, run.config.attack
    words = [a.name, a.loss, f'{a.budget} queries']
    words += [a.plan] if a.plan != 'once' else []
    words += [a.strategy] if a.strategy != 'random' else []
    words += [f'asked {a.data}'] if a.data else []
    words += [a.encoder] if a.encoder else []
    words += [f'from {a.init}'] if a.init else []
    words += [f'behind {c.defense}'] if c.defense else []
    words += [_adaptation(a.accounts, a.recover)] if a.accounts > 1 or a.recover else []
    return [*words, f'seed {c.seed}']


def _views(query_augmentation: str, student_augmentation: str) -> str:
    """Describes the augmentations of a run in a few words."""
    words = [f'asked {query_augmentation}'] if query_augmentation != 'none' else []
    words += [f'seen {student_augmentation}'] if student_augmentation != 'none' else []
    return ', '.join(words)


def _adaptation(accounts: int, recover: str) -> str:
    """Describes a run's accounts and recovery in a few words; plan and strategy apart."""
    words = [f'{accounts} accounts'] if accounts > 1 else []
    return ', '.join([*words, recover] if recover else words)
