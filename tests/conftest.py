"""Settings of the whole suite, and parts of one's own that its tests are to be run on."""

import commands
import jax
import pytest

# Most of the suite's time is compiling programs that run once. Processes that tests start compile as users do.
jax.config.update('jax_disable_most_optimizations', True)


def pytest_addoption(parser):
    for part in ('memory', 'transition'):
        parser.addoption(f'--{part}', help=f'Test this {part} beside the others: package.module:Name.')


def pytest_configure(config):
    import models

    for part, known in (('memory', models.MEMORIES), ('transition', models.TRANSITIONS)):
        if config.getoption(part):
            known[config.getoption(part)] = {}


@pytest.fixture(scope='session')
def command():
    """Runs a command of launch/ as a process: see `commands.Commands`."""
    run = commands.Commands()
    yield run
    run.close()
