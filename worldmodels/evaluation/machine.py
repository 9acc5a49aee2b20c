"""What figures were measured on."""

from __future__ import annotations

import os
import platform


def machine() -> dict[str, str | int]:
    import jax

    devices = jax.local_devices()
    return {
        'devices': len(devices),
        'device': devices[0].device_kind,
        'processor': platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'jax': jax.__version__,
        'python': platform.python_version(),
    }
