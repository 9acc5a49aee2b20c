"""Recorded experience: `collect` plays it, `episodes` keeps it as TFDS datasets in RLDS form, `pipeline` reads it."""
