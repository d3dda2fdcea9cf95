"""The commands of the pages on sources run as they stand, smaller: real processes."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from ssl_extract.runtime import files

ROOT = pathlib.Path(__file__).parent.parent.parent
HOW_TO = ROOT / 'docs/how_to'
SMALL = (
    '--run_index=0 --config.attack.epochs=1 --config.attack.budget=100 --config.evaluation.shots=0'
)
SMALL += ' --config.baselines.scratch_epochs=0 --config.baselines.random=False'


def blocks(page, language):
    text = (HOW_TO / page).read_text()
    return re.findall(rf'^```{language}\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)


def launch(command, folder):
    """Runs the command of a page in a folder: the rows of its surrogates."""
    words = shlex.split(command)
    argv = [sys.executable, str(ROOT / 'launch.py'), *words[2:], *shlex.split(SMALL)]
    env = os.environ | {'SERVICE_TOKEN': 'a-secret', 'NO_PROXY': '127.0.0.1'}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (results,) = folder.rglob('results.jsonl')
    rows = map(json.loads, results.read_text().splitlines())
    return [row for row in rows if row['role'] == 'surrogate']


@pytest.mark.wide
def test_a_file_of_embeddings_is_attacked(tmp_path):
    page = 'attack_stored_embeddings.md'
    (tmp_path / 'my_answers.py').write_text(blocks(page, 'python')[0])
    subprocess.run([sys.executable, 'my_answers.py'], cwd=tmp_path, check=True, timeout=120)
    rows = launch(blocks(page, 'bash')[0], tmp_path)
    assert {row['queries_billed'] for row in rows} == {100}


@pytest.mark.wide
def test_a_service_is_attacked_and_its_token_is_nowhere(tmp_path):
    page, namespace = 'attack_a_service.md', {}
    exec(blocks(page, 'python')[0], namespace)
    (command,) = blocks(page, 'bash')
    rows = launch(command.replace('http://127.0.0.1:8000', namespace['url']), tmp_path)
    namespace['server'].shutdown()
    namespace['server'].server_close()
    assert {row['queries_billed'] for row in rows} == {100}
    (journal,) = tmp_path.rglob('queries_sent.json')
    assert files.read_json(journal)['billed'] == 100
    assert not any(b'a-secret' in p.read_bytes() for p in tmp_path.rglob('*') if p.is_file())
