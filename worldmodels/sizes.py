"""DreamerV3's world model (Hafner et al., 2023) at the sizes of its released configs, as fields of `config.model`."""

from __future__ import annotations

# size: (deter, hidden, classes, depth, units); 32 groups and 8 blocks at every size.
DREAMER = {
    '1m': (512, 64, 4, 4, 64),
    '12m': (2048, 256, 16, 16, 256),
    '25m': (3072, 384, 24, 24, 384),
    '50m': (4096, 512, 32, 32, 512),
    '100m': (6144, 768, 48, 48, 768),
    '200m': (8192, 1024, 64, 64, 1024),
    '400m': (12288, 1536, 96, 96, 1536),
}


def dreamer(size: str) -> dict:
    """The `config.model` of DreamerV3 at a size: '1m' ... '400m'.

    The names are DreamerV3's and count its agent too; the world model alone has 0.59M parameters at 1m, 9.06M at 12m
    and 323M at 400m. That is up to 3% more than DreamerV3's own: its prior reads h' = f(h, z, a), while our transition
    reads (z, a, h), and our filter h and the transition's features.

    Raises:
      ValueError: an unknown size.
    """
    if size not in DREAMER:
        raise ValueError(f"'{size}' is no size of DreamerV3: choose one of {', '.join(DREAMER)}.")
    deter, hidden, classes, depth, units = DREAMER[size]
    return {
        'heart': {'kind': 'categorical', 'classes': classes, 'depth': depth, 'units': units},
        'filter': {'reads': 'prediction', 'hidden': hidden},
        'transition': {'kind': 'categorical', 'hidden': hidden},
        'memory': {'kind': 'recurrent', 'deter': deter, 'hidden': hidden},
        'outcome': {'reads': 'arrival', 'units': units},
        'context_to': ('transition', 'outcome', 'decoder'),
    }
