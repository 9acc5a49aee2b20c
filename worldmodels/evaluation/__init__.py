"""Questions asked of a world, one file each.

They receive functions and arrays; only `dreams.py` and `speeds.py` meet a model.
"""
