"""The OpenAPI document of the service."""

from typing import Any

import ssl_extract
from ssl_extract.serve.bodies import JSON, NPZ

_REFUSALS = {
    '400': 'The request is malformed, or a table has no answer to an input.',
    '401': 'There is no token, or the token is unknown.',
    '403': 'The token is of another kind: of an account, or of the owner.',
    '408': 'The body arrives too slowly.',
    '409': 'The Idempotency-Key was used with another body.',
    '413': 'The body or the batch is too large.',
    '429': 'The account sends too many requests; Retry-After has the seconds to wait.',
    '503': 'The service is busy, or the victim does not answer; nothing was billed.',
}
_WHOLE = {'type': 'integer', 'minimum': 0}
_WHOLE_OR_NULL = {'type': ['integer', 'null'], 'minimum': 0}
_BILL = {
    'billed': _WHOLE,
    'refused': _WHOLE,
    'budget': _WHOLE_OR_NULL,
    'remaining': _WHOLE_OR_NULL,
}
_BINARY = {'schema': {'type': 'string', 'format': 'binary'}}


def document(about: dict[str, Any], max_batch: int) -> dict[str, Any]:
    """Describes the service as OpenAPI 3.1.

    Args:
        about: the description of the service, with `input_shape` and `dim`.
        max_batch: inputs in one request.
    """
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'A defended encoder',
            'version': ssl_extract.__version__,
            'description': 'Answers inputs with vectors, within a budget for each account. An npz '
            'is a file of numpy.savez.',
        },
        'security': [{'token': []}],
        'paths': {
            '/v1/answers': {'post': _answers(about, max_batch)},
            '/v1/about': {'get': _get('Describes the service.', _about(about), '401')},
            '/v1/account': {'get': _get("Returns the account's bill.", _object(_BILL), '401')},
            '/v1/ledger': {'get': _get('Returns all bills, to the owner.', _ledger(), '401')},
            '/health': {'get': _get('Says that the service runs.', _health()) | {'security': []}},
            '/openapi.json': {
                'get': _get('Returns this document.', {'type': 'object'}) | {'security': []}
            },
        },
        'components': {
            'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
            'schemas': {'Error': _object({'error': {'type': 'string'}})},
        },
    }


def _answers(about: dict[str, Any], max_batch: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {'type': 'number'}
    for size in reversed(about['input_shape']):
        numbers = {'type': 'array', 'items': numbers, 'minItems': size, 'maxItems': size}
    inputs = {'type': 'array', 'items': numbers, 'minItems': 1, 'maxItems': max_batch}
    row = {'type': ['array', 'null'], 'items': {'type': 'number'}}
    reply = _object(
        {
            'answers': {'type': 'array', 'items': row},
            'granted': {'type': 'array', 'items': {'type': 'boolean'}},
            'billed': _WHOLE,
            'remaining': _WHOLE_OR_NULL,
        }
    )
    request = _object({'inputs': inputs, 'dtype': {'enum': ['uint8', 'float32']}})
    described = 'The answers; null where refused. An npz holds zeros there, and remaining -1 where '
    return {
        'summary': 'Answers a batch of inputs and bills the granted ones.',
        'parameters': [
            {
                'name': 'Idempotency-Key',
                'in': 'header',
                'description': 'A request with the same key and body is answered again and not '
                'billed again.',
                'schema': {'type': 'string', 'pattern': '^[!-~]{1,200}$'},
            }
        ],
        'requestBody': {
            'required': True,
            'content': {JSON: {'schema': request}, NPZ: _BINARY},
        },
        'responses': {
            '200': {
                'description': f'{described}there is no limit.',
                'content': {JSON: {'schema': reply}, NPZ: _BINARY},
            },
            **_refusals(*_REFUSALS),
        },
    }


def _about(about: dict[str, Any]) -> dict[str, Any]:
    return _object(
        {
            'dim': {'const': about['dim']},
            'input_shape': {'const': about['input_shape']},
            'answers': {'const': about['answers']},
            'max_batch': _WHOLE,
            'address': {'type': 'string'},
        }
    )


def _ledger() -> dict[str, Any]:
    account = _object(
        {
            **_BILL,
            'requests': _WHOLE,
            'last': {'type': 'string'},
            'noticed': {'type': 'object', 'additionalProperties': {'type': 'number'}},
        }
    )
    return _object(
        {
            'victim': {'type': 'string'},
            'defense': {'type': 'string'},
            'accounts': {'type': 'object', 'additionalProperties': account},
        }
    )


def _health() -> dict[str, Any]:
    return _object({'status': {'const': 'ok'}})


def _get(summary: str, schema: dict[str, Any], *refusals: str) -> dict[str, Any]:
    ok = {'description': 'The answer.', 'content': {JSON: {'schema': schema}}}
    codes = (*refusals, '403') if refusals else ()
    return {'summary': summary, 'responses': {'200': ok, **_refusals(*codes)}}


def _refusals(*codes: str) -> dict[str, Any]:
    error = {JSON: {'schema': {'$ref': '#/components/schemas/Error'}}}
    return {code: {'description': _REFUSALS[code], 'content': error} for code in codes}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {'type': 'object', 'properties': properties, 'required': list(properties)}
