"""All tests run on four emulated CPU devices, so that sharding is really tested.

They compile without LLVM's optimizations: most of their time is compilation.
"""

import os
import sys

import pytest

os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
)


@pytest.fixture
def registries_restored():
    """What a test registers is forgotten after it."""
    from ssl_extract.registry import Registry

    modules = [m for name, m in list(sys.modules.items()) if name.startswith('ssl_extract')]
    found = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Registry)}
    own = sys.modules.get('ssl_extract.attacks.base')
    every = [*found.values(), *((own.PRESETS, own.ENDPOINT_OF) if own else ())]
    theirs = sys.modules.get('ssl_extract.defenses.base')
    every += [theirs.RULES] if theirs else []
    before = [(registry, dict(registry)) for registry in every]
    yield
    if theirs:
        theirs.make.cache_clear()
    for registry, entries in before:
        registry.clear()
        registry.update(entries)
