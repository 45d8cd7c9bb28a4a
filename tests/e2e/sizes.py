"""How many of each there are in a chain that is scaled out: plain facts, also for who knows nothing of the product."""

from __future__ import annotations

from typing import Final

LAYERS: Final = ("engine", "agents", "emitter", "bridge")
REPLICAS: Final = 2
"""Of each layer."""
NODES: Final = 3
"""NATS servers."""
