"""Freed memory is kept: a program that runs again asks the system for nothing."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from worldmodels.training import allocator
if sys.argv[1] == 'kept':
    allocator.keep_freed_memory()
import jax, jax.numpy as jnp
x = jnp.ones((2048, 2048))
# Scratch memory of 16 MB a matrix, and a result of one number.
program = jax.jit(lambda x: jnp.sum(jnp.sin(x @ x) @ jnp.cos(x @ x)))
for _ in range(10):
    program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    program(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='mallopt is of glibc')
def test_a_program_run_again_finds_its_memory_mapped():
    kept, returned = (
        int(subprocess.run([sys.executable, '-c', FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ('kept', 'returned')
    )
    assert returned > 20 * 4000, 'without it, every run maps at least one matrix anew: else there is nothing to keep'
    assert kept < returned / 5  # the heap may still grow once


def test_a_c_library_without_the_function_changes_nothing(monkeypatch):
    from worldmodels.training import allocator

    assert allocator._glibc('no_such_function', 0) == 0
    monkeypatch.setattr(allocator, '_glibc', lambda *_: 0)
    allocator.keep_freed_memory()
    allocator.return_freed_memory()
