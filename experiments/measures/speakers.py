"""The metric of the speech study: the equal error rate of speakers that no attack asked about."""

from ssl_extract import evaluation
from ssl_extract.evaluation.verification import equal_error_rate

TASK = 'unseen_speakers'


@evaluation.register_metric(
    'equal_error_rate',
    share=True,
    title='Equal error rate of pairs',
    better='smaller',
    section='Speakers that were never asked about',
)
def of_pairs(features: evaluation.Features) -> evaluation.Measurement | None:
    """Measures the error rate of all pairs of test clips; None on other tasks.

    The mean of the training clips is subtracted first, as is usual before cosines of speakers.
    """
    if features.task != TASK:
        return None
    return equal_error_rate(features.test - features.train.mean(axis=0), features.test_labels)
