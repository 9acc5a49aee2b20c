"""What figures were measured on."""

from __future__ import annotations

import os
import pathlib
import platform


def machine() -> dict[str, str | int]:
    """Devices, cores and versions by name; `hardware` says the devices jax computes on in words."""
    import jax

    devices = jax.local_devices()
    device = devices[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    processor = _processor()
    return {
        'hardware': f'{processor}, {cores} cores' if devices[0].platform == 'cpu' else f'{len(devices)} x {device}',
        'devices': len(devices),
        'device': device,
        'processor': processor,
        'cores': cores,
        'jax': jax.__version__,
        'python': platform.python_version(),
    }


def _processor() -> str:
    """The name its maker gave it, where the system tells; else its architecture."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
