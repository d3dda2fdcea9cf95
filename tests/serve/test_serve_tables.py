"""A table of embeddings as a service: what it holds, and what it does not."""

import numpy as np
import pytest
import serving
from serving import DIM, ask, call, images

import ssl_extract
from ssl_extract import serve, victims
from ssl_extract.errors import UserError
from ssl_extract.runtime import files
from ssl_extract.serve.bodies import JSON, NPZ


def opened(folder, table):
    return serve.open_service(table, '', serving.entries(a=10), folder)


def table_of(path, inputs):
    np.savez(path, inputs=inputs, embeddings=np.arange(len(inputs) * DIM).reshape(-1, DIM))
    return victims.load(f'embeddings({str(path)!r})')


FLOATS = images(4).astype(np.float32) / 255
TOKENS = 999 * np.arange(28).reshape(4, 7)


@pytest.mark.parametrize('kind', [JSON, NPZ])
@pytest.mark.parametrize(
    ('inputs', 'sent'),
    [
        (images(4), images(4)),
        (images(4), FLOATS),
        (FLOATS, images(4)),
        (images(4)[:, 0, 0], images(4)[:, 0, 0]),
        (TOKENS, TOKENS.astype(np.float32)),
    ],
    ids=['bytes', 'floats of bytes', 'bytes of floats', 'bytes that are no images', 'tokens'],
)
def test_what_a_table_holds_is_found_in_each_form_of_a_request(tmp_path, inputs, sent, kind):
    table = table_of(tmp_path / 'table.npz', inputs)
    with opened(tmp_path / 's', table) as made, serving.running(made) as url:
        status, value, _ = ask(url, sent[[2, 0]], kind=kind)
        assert status == 200, value
        assert np.asarray(value['answers'])[:, 0].tolist() == [2 * DIM, 0]
        assert ask(url, sent[:1] + np.float32(0.25), kind=kind)[0] == 400


@pytest.mark.parametrize('body', ['json', 'npz'])
def test_an_input_that_a_table_has_no_answer_to_is_billed_in_no_ledger(tmp_path, monkeypatch, body):
    monkeypatch.setenv('TOKEN_OF_A', serving.SECRETS['a'])
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    known = images(4)
    table, folder = table_of(tmp_path / 'table.npz', known), tmp_path / 'client'
    mixed = np.concatenate([known[:2], 255 - known[:2]])
    with opened(tmp_path / 's', table) as made, serving.running(made) as url:
        status, value, _ = ask(url, mixed, kind=JSON if body == 'json' else NPZ)
        message = '2 of 4 inputs are none of those that this service has answers to; nothing was'
        assert status == 400 and value['error'].startswith(message)
        source = f"http({url!r}, token='TOKEN_OF_A', body={body!r}, batch_size=3)"
        oracle = ssl_extract.make_oracle(victims.load(source), budget=10)
        for inputs, paid in ((mixed[1:], 0), (np.concatenate([known[1:], mixed[2:]]), 3)):
            with pytest.raises(UserError, match='status 400, .2 of . inputs are none of those'):
                ssl_extract.collect(oracle, inputs, folder=folder / str(paid))
            journal = files.read_json(folder / str(paid) / 'queries_sent.json')
            assert (journal['sent'], journal['billed']) == ({url: paid} if paid else {}, paid)
            assert call(url, '/v1/account')[1]['billed'] == paid
        got = ssl_extract.collect(oracle, known[1:], folder=folder / '3')
        assert got.representations[:, 0].tolist() == [DIM, 2 * DIM, 3 * DIM]
        ledger = call(url, '/v1/ledger', 'owner')[1]['accounts']['a']
        assert (ledger['billed'], ledger['refused']) == (3, 0)
