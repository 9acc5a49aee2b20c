"""World models in JAX: train, run and examine them. Start at `worldmodels.world_model`."""
