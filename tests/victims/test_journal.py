"""What an account has sent is on disk before it is sent, and a limit over accounts holds."""

import concurrent.futures

import pytest
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.victims.journal import NAME, Journal


def journal(folder, limit=None, repeats=True, url='s'):
    return Journal(epath.Path(folder), url, limit, repeats)


def send(folder, number=0, rows=4, content=b'x', **settings):
    """A request that is sent and never answered."""
    books = journal(folder, **settings)
    books.begin(books.key(number, content), number, rows)
    return books


def test_a_request_that_is_repeated_counts_once_if_the_service_knows_its_key(tmp_path, capfd):
    first, second = (send(tmp_path / 'a') for _ in range(2))
    assert first.state['key'] == second.state['key'] and second.sent() == 4
    assert (
        '4 queries that were sent before are sent again under the same key' in capfd.readouterr()[1]
    )
    send(tmp_path / 'a', content=b'y')  # of another batch size: the first is lost
    assert journal(tmp_path / 'a').sent() == 8
    assert '4 queries that were sent before have no answers in the store' in capfd.readouterr()[1]
    for _ in range(2):
        send(tmp_path / 'b', repeats=False, url='t')
    assert journal(tmp_path / 'b', url='t').sent() == 8


def test_an_answer_that_a_kill_kept_out_of_the_store_is_billed_once(tmp_path):
    for number in (0, 4, 4):  # the last one again
        send(tmp_path / 'a', number).finish(3)
    assert journal(tmp_path / 'a').state['billed'] == 6
    for _ in range(2):  # of a service that bills it twice
        send(tmp_path / 'b', repeats=False).finish(4)
    assert journal(tmp_path / 'b').state['billed'] == 8


def test_keys_differ_between_accounts_places_and_contents(tmp_path):
    keys = [send(tmp_path / name).state['key'] for name in 'ab']
    keys += [send(tmp_path / 'a', number=4).state['key'], send(tmp_path / 'a', content=b'y')]
    assert len({*map(str, keys)}) == 4


def test_what_was_refused_is_taken_back_unless_an_earlier_attempt_is_unknown(tmp_path):
    send(tmp_path / 'a').withdraw()
    assert journal(tmp_path / 'a').sent() == 0
    send(tmp_path / 'a')
    send(tmp_path / 'a').withdraw()  # the first may have been billed
    assert journal(tmp_path / 'a').sent() == 4


def test_accounts_in_a_race_do_not_pass_the_limit(tmp_path):
    def spend(name):
        for number in range(0, 40, 4):
            try:
                send(tmp_path / name, number, limit=50)
            except UserError as error:
                assert 'max_queries=50' in str(error)
                return

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(spend, 'abcdefgh'))
    assert 0 < journal(tmp_path / 'a').sent() <= 48  # twelve requests of four


def test_an_account_that_moves_to_another_url_counts_at_each(tmp_path):
    send(tmp_path / 'a')
    moved = send(tmp_path / 'a', url='t')  # the same request, which `t` has never seen
    assert moved.sent() == journal(tmp_path / 'a').sent() == 4
    assert moved.state['key'] == journal(tmp_path / 'a').state['key']
    with pytest.raises(UserError, match='max_queries=7: 4 were sent to t by this account'):
        send(tmp_path / 'b', url='t', limit=7)
    send(tmp_path / 'a', number=4, url='t', limit=8)
    assert journal(tmp_path / 'a', url='t').sent() == 8 and journal(tmp_path / 'b').sent() == 4


@pytest.mark.parametrize('content', ['{"sent": ', '{"sent": 4}'])
def test_a_damaged_journal_is_one_line_and_nothing_is_sent(tmp_path, content):
    send(tmp_path / 'a')
    (tmp_path / 'a' / NAME).write_text(content)
    with pytest.raises(UserError, match='put it back from a copy; without it nobody knows'):
        send(tmp_path / 'b', limit=50)
    assert not (tmp_path / 'b').exists()
