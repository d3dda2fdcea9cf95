"""Compiled programs that are kept from one process to the next."""

import os
import subprocess
import sys

from ssl_extract.runtime import files

PROGRAM = """
import pathlib, sys
import jax
from etils import epath
from ssl_extract.runtime import parallel

parallel.keep_programs(epath.Path(sys.argv[1]))
print(jax.jit(lambda x: 3 * x + 1)(2.0))
"""
ALWAYS = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_COMPILATION_CACHE_DIR': ''}


def start(folder):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, folder], env=os.environ | ALWAYS, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b'7.0\n', b'')
    return {path.name: path.read_bytes() for path in files.find(folder, '*-cache')}


def test_a_program_that_was_cut_off_is_compiled_again_without_a_warning(tmp_path):
    folder = tmp_path / '[a]*?'
    programs = start(folder)
    assert programs
    for length in (0, -5):
        for program, content in programs.items():
            (folder / program).write_bytes(content[:length])
        whole = start(folder)
        assert whole.keys() == programs.keys() and all(map(bool, whole.values()))
    before = {path: path.stat().st_mtime_ns for path in (folder).iterdir()}
    start(folder)
    assert before == {path: path.stat().st_mtime_ns for path in (folder).iterdir()}
