"""The tokens file: accounts, hashes of their tokens and budgets.

    {"owner": {"sha256": "9f86..."}, "alice": {"sha256": "60a3...", "budget": 10000}}

A token is a random secret of 256 bits, so that one SHA-256 hides it. The file may hold a `token`
in place of a hash; then other users of the machine must not be able to read the file.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

from etils import epath

from ssl_extract.checks import check_whole
from ssl_extract.errors import UserError
from ssl_extract.oracle import MAX_BUDGET
from ssl_extract.runtime import files, locks

OWNER = 'owner'
SHORTEST = 16  # characters of a token that the owner chose


class Entry(NamedTuple):
    """One line of the tokens file.

    Attributes:
        name: of the account; 'owner' reads the ledger and sends no queries.
        digest: the SHA-256 of the token, 64 hexadecimal digits.
        budget: queries that the account may send; None is no limit.
    """

    name: str
    digest: str
    budget: int | None


def digest_of(token: str) -> str:
    """Returns the SHA-256 of a token.

    >>> digest_of('test')[:8]
    '9f86d081'
    """
    return hashlib.sha256(token.encode()).hexdigest()


def read(path: epath.PathLike) -> list[Entry]:
    """Reads a tokens file.

    Raises:
        UserError: the file is missing or no such file, an entry is wrong, two entries have one
            token, or others can read the tokens.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f'--tokens={path}: there is no such file; make it by: ssl-extract tokens')
    entries = [_entry(path, name, fields) for name, fields in _parsed(path).items()]
    if len({entry.digest for entry in entries}) < len(entries):
        raise UserError(f'{path}: two entries have the same token; give each a token of its own')
    return entries


def add(path: epath.PathLike, names: Iterable[str], budget: int | None) -> dict[str, str]:
    """Adds accounts with new tokens to a tokens file, of which only hashes are written.

    Args:
        path: the file; a new one gets an entry of the owner too.
        names: of the accounts.
        budget: of each account; None is no limit.

    Returns:
        The new tokens by name. They are nowhere else.

    Raises:
        UserError: a name is taken or no name, or the budget is out of range.
    """
    path, names = epath.Path(path), list(names)
    with locks.lock(path.parent / f'.{path.name}.lock', f'the tokens file {path}'):
        return _add(path, names, budget)


def _add(path: epath.Path, names: list[str], budget: int | None) -> dict[str, str]:
    values = _parsed(path) if path.exists() else {}
    new = ([] if OWNER in values else [OWNER]) + names
    for position, name in enumerate(new):
        if name in values or name in new[:position]:
            raise UserError(f'{path}: {name!r} has a token already; write another name')
    tokens = {name: secrets.token_urlsafe(32) for name in new}
    values |= {name: {'sha256': digest_of(token)} for name, token in tokens.items()}
    for name in names:
        values[name]['budget'] = budget
    for name, fields in values.items():
        _entry(path, name, fields)
    before = os.umask(0o077)
    try:
        files.write_text(path, files.as_json(values))
    finally:
        os.umask(before)
    return tokens


def find(entries: Iterable[Entry], token: str) -> Entry | None:
    """Returns the entry of a token; the time tells nothing of the tokens in the file."""
    digest = digest_of(token)
    matches = [entry for entry in entries if hmac.compare_digest(entry.digest, digest)]
    return matches[0] if matches else None


def _parsed(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: it is no tokens file ({error})') from None
    if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
        raise UserError(f'{path}: it is no tokens file: write {{"NAME": {{"sha256": ...}}}}')
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError('a name stands there twice')
    return values


def _entry(path: epath.Path, name: str, fields: dict[str, Any]) -> Entry:
    where = f'{path}: {name!r}'
    if not re.fullmatch(r'[A-Za-z0-9_-]{1,64}', name):
        raise UserError(f'{where}: a name has 1 to 64 letters, digits, - and _')
    unknown = fields.keys() - {'sha256', 'token', 'budget'}
    if unknown or ('sha256' in fields) == ('token' in fields):
        raise UserError(f'{where}: write "sha256" or "token", and "budget"')
    budget = fields.get('budget')
    if name == OWNER and budget is not None:
        raise UserError(f'{where}: the owner sends no queries; leave "budget" out')
    if name != OWNER and 'budget' not in fields:
        raise UserError(f'{where}: write "budget", a number of queries or null for no limit')
    if budget is not None:
        check_whole(f'{where}: "budget"', budget, 1, MAX_BUDGET)
    if 'token' in fields:
        return Entry(name, _digest_of_token(path, where, fields['token']), budget)
    digest = fields['sha256']
    if not isinstance(digest, str) or not re.fullmatch('[0-9a-f]{64}', digest):
        raise UserError(f'{where}: "sha256" is 64 hexadecimal digits: sha256sum of the token')
    return Entry(name, digest, budget)


def _digest_of_token(path: epath.Path, where: str, token: Any) -> str:
    if not isinstance(token, str) or not re.fullmatch(rf'[!-~]{{{SHORTEST},}}', token):
        raise UserError(f'{where}: a "token" has {SHORTEST} or more ASCII letters, no spaces')
    if os.stat(path).st_mode & 0o077:
        raise UserError(f'{path}: it holds a token and others can read it: chmod 600 {path}')
    return digest_of(token)
