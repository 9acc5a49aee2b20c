"""Settings of the whole suite, and parts of one's own that its tests are to be run on."""

import pathlib

import commands
import jax
import pytest

# Most of the suite's time is compiling programs that run once. Processes that tests start compile as users do.
jax.config.update('jax_disable_most_optimizations', True)

# Every compiled program holds a few mappings of memory, and Linux ends a process that asks for more than 65,530.
MAPPINGS = pathlib.Path('/proc/self/maps')
MOST_MAPPINGS = 30_000


def pytest_addoption(parser):
    for part in ('memory', 'transition'):
        parser.addoption(f'--{part}', help=f'Test this {part} beside the others: package.module:Name.')


def pytest_configure(config):
    import models

    for part, known in (('memory', models.MEMORIES), ('transition', models.TRANSITIONS)):
        if config.getoption(part):
            known[config.getoption(part)] = {}


@pytest.fixture(autouse=True)
def few_mappings():
    """Lets go of compiled programs before there are too many for one process."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b'\n') > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(scope='session')
def command():
    """Runs a command of launch/ as a process: see `commands.Commands`."""
    run = commands.Commands()
    yield run
    run.close()
