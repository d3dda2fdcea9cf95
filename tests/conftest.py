"""Tests run on four emulated CPU devices, so that sharding is really tested.

TEST_DEVICES=1 takes one device, for which most programs compile faster. Tests with the marker
`devices` need four, and are skipped then; `make test` runs them apart.

Most of the tests' time is tracing and compiling. Tests, workers and their processes therefore
share their compiled programs in a folder below pytest's cache, and compile fast rather than well.
Their temporary files are in memory where there is room, since every checkpoint waits for the disk.
"""

import gc
import importlib.metadata
import os
import pathlib
import shutil
import signal
import threading

import pytest

COMPILED = pathlib.Path(__file__).parent.parent / '.pytest_cache' / 'compiled'
COMPILED_BYTES = 2**30  # programs of old sources stay, so that a larger folder is emptied

DEVICES = int(os.environ.get('TEST_DEVICES', '4'))
FLAGS = [
    f'--xla_force_host_platform_device_count={DEVICES}',
    '--xla_backend_optimization_level=0',
]
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # newer ones may refuse a flag
    FLAGS += [
        '--xla_cpu_use_fusion_emitters=false',  # halves the time
        '--xla_cpu_parallel_codegen_split_count=1',  # a seventh: programs are small
    ]

gc.set_threshold(100_000, 50, 100)  # traced programs are many objects, and few of them garbage

# A suite in the background inherits signals that are ignored, and so would its processes.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

GIVEN = os.environ.get('XLA_FLAGS', '').split()  # in a worker, all of them
os.environ['XLA_FLAGS'] = ' '.join([*GIVEN, *(flag for flag in FLAGS if flag not in GIVEN)])
for variable, default in {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUMPY_RANK_PROMOTION': 'raise',
    'JAX_COMPILATION_CACHE_DIR': str(COMPILED),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
    'JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS': '0',  # in programs, which nobody reads here
}.items():
    os.environ.setdefault(variable, default)


IN_MEMORY = pathlib.Path('/dev/shm')
ROOM = 4 * 2**30  # bytes that must be free
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ.setdefault('TMPDIR', str(IN_MEMORY))


def pytest_configure(config):
    """Empties a folder of compiled programs that has grown too large, before workers start."""
    in_worker = hasattr(config, 'workerinput')
    if not in_worker and sum(f.stat().st_size for f in COMPILED.glob('*')) > COMPILED_BYTES:
        shutil.rmtree(COMPILED)


LONGEST = (  # those that train alike one behind the other, so that they share their programs
    'test_launch.py',
    'test_golden_rows.py',
    'test_attacks_killed.py',
    'test_attacks_conformance.py',
    'test_api.py',
    'test_docs.py',
    'test_defenses.py',
)


def pytest_collection_modifyitems(items):
    """Puts the longest modules first: a worker takes whole ones, and none shall end alone."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
    if DEVICES < 4:
        for item in items:
            if item.get_closest_marker('devices'):
                item.add_marker(pytest.mark.skip(reason='needs TEST_DEVICES=4'))


@pytest.fixture(scope='module', autouse=True)
def programs_dropped():
    """Lets go of a module's compiled programs: all of them would fill the memory."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def registries_restored():
    """What a test registers is forgotten after it."""
    from ssl_extract import defenses
    from ssl_extract.registry import REGISTRIES

    before = [(registry, registry.entries) for registry in REGISTRIES.values()]
    for registry, entries in before:
        registry.entries = dict(entries)
    yield
    defenses.make.cache_clear()
    for registry, entries in before:
        registry.entries = entries
