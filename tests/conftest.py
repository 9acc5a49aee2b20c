"""Settings of the whole suite, and parts of one's own that its tests are to be run on."""

import os
import pathlib

# Most of the suite's time is compiling programs that run once, here and in the processes that tests start. Without
# optimizations they take half as long, and without those fusions that go through MLIR a quarter of that. Those that are
# to go on to the bit compile as users' do: `training_runs`.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_use_fusion_emitters=false'.strip()

import commands
import jax
import pytest
from hypothesis import settings

from worldmodels.training import allocator, metrics

# The same examples every time: what fails for one fails for all.
settings.register_profile('repeatable', derandomize=True, deadline=None, database=None)
settings.load_profile('repeatable')

# Every compiled program holds memory, and a few mappings of it; Linux ends a process that asks for more than 65,530 of these.
MAPPINGS = pathlib.Path('/proc/self/maps')
MOST_MAPPINGS = 30_000
MOST_MB = 1000


def pytest_addoption(parser):
    parser.addoption(
        '--grid',
        nargs='?',
        const='1/1',
        help='Train every combination of parts, not only a cover of all pairs; with 3/20 the third twentieth of them.',
    )
    for part in ('memory', 'transition'):
        parser.addoption(f'--{part}', help=f'Test this {part} beside the others: package.module:Name.')


def pytest_configure(config):
    import models

    for part, known in (('memory', models.MEMORIES), ('transition', models.TRANSITIONS)):
        if config.getoption(part):
            known[config.getoption(part)] = {}


@pytest.fixture(scope='session')
def held():
    """MB of this process when it last let go of its programs."""
    return {'mb': metrics.resident_mb()}


@pytest.fixture(autouse=True)
def few_programs(held):
    """Lets go of compiled programs before they hold a gigabyte more, or there are too many for one process."""
    yield
    many = MAPPINGS.exists() and MAPPINGS.read_bytes().count(b'\n') > MOST_MAPPINGS
    if many or metrics.resident_mb() > held['mb'] + MOST_MB:
        jax.clear_caches()
        allocator.return_freed_memory()
        held['mb'] = metrics.resident_mb()


@pytest.fixture(scope='session')
def command():
    """Runs a command of launch/ as a process: see `commands.Commands`."""
    run = commands.Commands()
    yield run
    run.close()
