"""All tests run on four emulated CPU devices, so that sharding is really tested.

They compile without LLVM's optimizations: most of their time is compilation.
"""

import os

import pytest

os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
)


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
