"""Starts of the surrogate: what an attacker has before any query.

A surrogate is untrained at first, unless `attack.init` names a start. An attacker who has inputs of
the victim's kind can pretrain an encoder on them without the victim, and steal into that one, as
the attack on speech models does (Hsu et al. 2022, arXiv 2211.16044).

    @attacks.register_start('my_start')
    def my_start() -> attacks.Start:
        return lambda own: ssl_extract.load('my_encoder.safetensors')

The encoder has the network of the surrogate. Only its variables are taken; the heads are new.
"""

from collections.abc import Callable

from ssl_extract.encoders import trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.registry import Registry

# (the attacker's own encoder) -> the encoder whose variables the surrogate starts from.
Start = Callable[[Encoder | None], Encoder]
# The trait of a start.
# needs: 'shadow' where it takes the attacker's own encoder; others get None.
STARTS = Registry('start', choices={'needs': ('shadow',)}, needs=())
register_start = STARTS.register


@register_start('scratch', needs=('shadow',))
def scratch() -> Start:
    """Starts from the encoder of the baseline 'from scratch', pretrained without the victim.

    >>> from ssl_extract import attacks
    >>> sorted(attacks.STARTS.needs('scratch'))
    ['shadow']
    """
    return lambda own: own


@register_start('checkpoint')
def checkpoint(path: str) -> Start:
    """Starts from a saved encoder; what its training cost is not counted.

    >>> start = checkpoint('runs/mine/scratch/0123456789abcdef')

    Args:
        path: the folder of a stage, or of `pretrain` or `steal`.

    Raises:
        UserError: later, the folder holds no encoder, or one that is damaged.
    """
    return lambda own: trained.load(path)
