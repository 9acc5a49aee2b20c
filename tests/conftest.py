"""Settings of the whole suite."""

import jax

# Most of the suite's time is compiling programs that run once. Processes that tests start compile as users do.
jax.config.update('jax_disable_most_optimizations', True)
