"""Training: one loop, one step, one place that knows devices. Start at `loop`."""
