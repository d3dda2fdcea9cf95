"""Compiled programs that are kept from one process to the next."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp

from ssl_extract.encoders import onednn

PROGRAM = """
import sys
import jax
from ssl_extract.runtime import programs

compiled = []
jax.monitoring.register_event_listener(lambda event, **_: compiled.append(event))
programs.keep()
print(jax.jit(lambda x: 3 * x)(jax.jit(lambda x: x + 1)(2.0)))
print(compiled.count('/jax/compilation_cache/cache_misses'), file=sys.stderr)
"""


def start(cache):
    """Returns the programs that a process finds or leaves, and how many it compiled."""
    env = os.environ | {'XDG_CACHE_HOME': str(cache), 'JAX_COMPILATION_CACHE_DIR': ''}
    done = subprocess.run([sys.executable, '-c', PROGRAM], env=env, capture_output=True)
    assert done.stdout == b'9.0\n'
    folder = cache / 'ssl_extract/compiled'
    programs = {path: path.read_bytes() for path in folder.glob('[!o]*/*-cache')}
    return programs, int(done.stderr)  # nothing but the number: no warning


def test_what_a_process_compiled_is_read_by_the_next_one_and_what_was_cut_off_compiled_again(
    tmp_path,
):
    cache = tmp_path / '[a]*?'
    programs, compiled = start(cache)
    assert compiled == len(programs) >= 2
    for length, (path, content) in zip((0, -5), programs.items(), strict=False):
        path.write_bytes(content[:length])
    old, new = (cache / 'ssl_extract/compiled/other' / name for name in ('old-cache', 'new-cache'))
    old.parent.mkdir()
    for path, size, read in ((old, 2**29, 1e9), (new, 2**29 + 1, 2e9)):  # beyond the limit together
        with path.open('wb') as file:
            file.truncate(size)
        os.utime(path, (read, read))
    again, compiled = start(cache)
    assert again.keys() == programs.keys() and all(map(bool, again.values()))
    assert compiled == 2
    assert new.exists() and not old.exists()
    before = {path: path.stat().st_mtime_ns for path in again}
    assert start(cache) == (again, 0)
    assert before == {path: path.stat().st_mtime_ns for path in again}


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / 'ssl_extract').write_text('a file, where a folder should be')
    env = os.environ | {'XDG_CACHE_HOME': str(tmp_path), 'JAX_COMPILATION_CACHE_DIR': ''}
    code = 'from ssl_extract.runtime import programs; programs.keep()'
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith('note: compiled programs are not kept: ')
    assert done.stderr.count('\n') == 1


def test_a_program_that_cannot_be_written_is_left_out():
    def plain(inputs, kernel):
        return inputs @ kernel[0, 0]

    def fast(inputs, kernel):
        return onednn.conv(inputs, kernel, 1)

    inputs, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((1, 1, 2, 2))
    for function in (plain, fast):
        assert jax.jit(function)(inputs, kernel).shape == (1, 3, 3, 2)
    folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    assert list(folder.glob('jit_plain-*')) and not list(folder.glob('jit_fast-*'))
