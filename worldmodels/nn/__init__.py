"""Layers the parts share."""
