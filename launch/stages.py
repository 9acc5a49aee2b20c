"""Commands of this project run one after the other, each as its own process: what the demo and a sweep have in common."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(stage: Sequence[str], title: str) -> float:
    """Run one command, `stage` being what follows the interpreter, and return its seconds.

    Raises:
      ValueError: it ended with a status that is not zero; it has said why.
    """
    print(f'\n{title}\n$ python {shlex.join(stage)}', flush=True)
    began = time.time()
    # Ctrl-C reaches the process too, and it may have something to save before it ends.
    process = subprocess.Popen([sys.executable, *stage], cwd=ROOT, env=os.environ)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status:
        raise ValueError(f'`python {shlex.join(stage)}` ended with status {status}')
    return time.time() - began
