"""The emitter service."""
