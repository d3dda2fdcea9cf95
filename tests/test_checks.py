import math
import os
import pathlib
import subprocess
import sys

import pytest

from ssl_extract.checks import check_number, machine_memory, memory_limits
from ssl_extract.errors import UserError


@pytest.mark.parametrize(
    ('value', 'bounds'),
    [
        (-1e9, {}),
        (0, {'least': 0}),
        (1, {'most': 1}),
        (1e-9, {'above': 0}),
        (0.999, {'below': 1}),
        (0.5, {'least': 0, 'above': 0, 'most': 1, 'below': 1}),
    ],
)
def test_numbers_within_their_bounds(value, bounds):
    check_number('x', value, **bounds)


@pytest.mark.parametrize(
    ('value', 'bounds', 'said'),
    [
        (math.nan, {}, 'x must be a finite number, got nan'),
        (math.inf, {'above': 0}, 'x must be a finite number above 0, got inf'),
        (True, {}, 'x must be a finite number, got True'),
        ('1', {'least': 0}, "x must be a finite number of at least 0, got '1'"),
        (0, {'above': 0}, 'x must be a finite number above 0, got 0'),
        (1, {'below': 1}, 'x must be a finite number below 1, got 1'),
        (-0.1, {'least': 0}, 'x must be a finite number of at least 0, got -0.1'),
        (2, {'above': 0, 'most': 1}, 'x must be a finite number above 0 and at most 1, got 2'),
    ],
)
def test_other_values(value, bounds, said):
    with pytest.raises(UserError) as caught:
        check_number('x', value, **bounds)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ('groups', 'files', 'limits'),
    [
        ('0::/\n', {'cpu.max': '5'}, []),
        ('0::/a/b\n', {'a/b/memory.max': 'max', 'a/memory.max': '30', 'c/memory.max': '1'}, [30]),
        ('0::/a/b\n', {'a/b/memory.max': '20', 'a/memory.max': '30'}, [20, 30]),
        ('0::/a\n', {'memory.max': '40'}, [40]),  # a container
        ('3:cpu:/a\n2:pids,memory:/a\n', {'memory/a/memory.limit_in_bytes': '7'}, [7]),
        ('2:memory:/docker/1\n', {'memory/memory.limit_in_bytes': '9'}, [9]),
        ('2:memory:/\n', {'memory/memory.limit_in_bytes': '9', 'memory.max': '8'}, [9]),
    ],
)
def test_limits_of_control_groups(tmp_path, groups, files, limits):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + '\n')
    assert memory_limits(groups, tmp_path) == limits


def test_a_process_in_a_control_group_has_the_groups_memory():
    assert 0 < machine_memory() <= os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    root = pathlib.Path('/sys/fs/cgroup')
    name = 'memory/ssl_extract_test' if (root / 'memory').is_dir() else 'ssl_extract_test'
    group, limit = root / name, 2**30
    try:
        group.mkdir()
    except OSError:
        pytest.skip('control groups cannot be made here')
    try:
        file = 'memory.limit_in_bytes' if 'memory/' in name else 'memory.max'
        (group / file).write_text(str(limit))
        program = (
            f'import os; open({str(group / "cgroup.procs")!r}, "w").write(str(os.getpid()))\n'
            'from ssl_extract.checks import machine_memory; print(machine_memory())'
        )
        said = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
        assert said.stdout == f'{limit}\n', said.stderr
    except OSError:
        pytest.skip('control groups of this machine have no limit of memory')
    finally:
        group.rmdir()
