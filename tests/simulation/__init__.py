"""A deterministic simulation of the whole chain."""
