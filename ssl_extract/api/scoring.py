"""Scores of suspects, for the facade."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

import ssl_extract
from ssl_extract import data
from ssl_extract.api import inputs as inputs_lib
from ssl_extract.api.inputs import Inputs
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.identity import content_of
from ssl_extract.ownership import represented, scoring
from ssl_extract.ownership.base import Case
from ssl_extract.ownership.represented import Candidate, Given
from ssl_extract.ownership.scoring import Encoders, Score

Group = Mapping[str, Given] | epath.PathLike  # encoders by name, or the folder that holds them


def score(
    victim: Given,
    suspects: Group,
    *,
    private: Inputs | None = None,
    public: Inputs | None = None,
    independents: Group | None = None,
    shadows: Group | None = None,
    conferrable: Inputs | None = None,
    mark: Any = None,
    tests: Sequence[str] | None = None,
    folder: epath.PathLike | None = None,
) -> list[Score]:
    """Tests whether suspects were stolen from a victim.

    The p-value of a test stands on 8 independent encoders or more, or on the secrets of a mark. It
    is corrected over the suspects of the test, and not over several tests: name the test before its
    result is seen (see `ownership.false_claims`).

    A victim behind a network is asked every input once in a call.

    Args:
        victim: an `Encoder`, a `Victim`, a function of decoded inputs, or a path that `load` reads.
        suspects: encoders of unknown origin: a folder of them, or any of the above by name.
        private: [N, ...], inputs that the victim was trained on and nobody else has.
        public: [M, ...], inputs of the same source that no encoder was trained on.
        independents: encoders that are known not to be stolen.
        shadows: encoders that the owner trained by the victim's recipe on other inputs.
        conferrable: [P, ...], inputs of `ownership.search_conferrable`.
        mark: what verifies the victim's mark, for tests that need one.
        tests: specs of ownership tests; None is every test that has what it needs.
        folder: keeps the results of each finished encoder; a killed call goes on there.

    Returns:
        The scores, test by test, in the order of the suspects.

    Raises:
        UserError: sets overlap, are too small or do not fit an encoder, an encoder has two roles or
            a name that is not printable, a test lacks what it needs, or no test has a null. No
            encoder was run then.
    """
    given = {'private': private, 'public': public, 'conferrable': conferrable}
    sets = {
        name: inputs_lib.dataset_of(value, _name_of(value, name))
        for name, value in given.items()
        if value is not None
    }
    _check_apart(sets.get('private'), sets.get('public'))
    owner = represented.candidate('the victim', victim)
    shadow_encoders, others = _candidates(shadows), _candidates(independents)
    encoders = Encoders(_candidates(suspects), others)
    for encoder in (owner, *shadow_encoders, *encoders.suspects, *others):
        for dataset in sets.values():
            inputs_lib.check_shape(dataset, encoder.input_shape, encoder.name)
    scoring.check_roles(owner, shadow_encoders, encoders)
    decoded = {name: np.asarray(data.decoder(s)(s.inputs)) for name, s in sets.items()}
    case = Case(
        owner.open(), **decoded, shadows=tuple(map(scoring.lazy, shadow_encoders)), mark=mark
    )
    content = {
        'version': ssl_extract.__version__,
        'victim': owner.address,
        'sets': {name: data.digest(dataset) for name, dataset in sets.items()},
        'shadows': [shadow.address for shadow in shadow_encoders],
        'mark': content_of(mark),
    }
    with inputs_lib.opened(folder) as where:
        return scoring.score(case, encoders, tests, content=content, folder=where)


def _candidates(group: Group | None) -> list[Candidate]:
    """Returns the encoders of a group, each checked."""
    if group is None:
        return []
    if isinstance(group, str | os.PathLike):
        group = represented.in_folder(group)
    if not isinstance(group, Mapping):
        raise UserError(f'{type(group).__name__} names no encoders: give a folder, or a dict')
    return [represented.candidate(name, given) for name, given in group.items()]


def _name_of(value: Inputs, name: str) -> str:
    return value.name if isinstance(value, Dataset) else name


def _check_apart(private: Dataset | None, public: Dataset | None) -> None:
    if private is None or public is None:
        return
    shared = data.count_shared(private, public)
    if shared:
        raise UserError(
            f'{shared} of the {len(public.inputs)} public inputs {public.name} are among the '
            f'private inputs {private.name}: give sets that share none'
        )
