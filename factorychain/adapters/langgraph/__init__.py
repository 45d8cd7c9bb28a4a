"""LangGraph: a compiled graph, as its author made it, as an agent.

```python
graph = builder.compile()                                    # factorychain up --agents my.module:graph
helper = agent(graph, name="helper", network_ports=[443])    # or with choices of one's own
```
"""

from __future__ import annotations

from factorychain.adapters.adapted import MissingLibrary

try:
    import langgraph.pregel  # noqa: F401 - what follows needs it
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langgraph", "langchain_core"):
        raise
    raise MissingLibrary("langgraph", error.name or "langgraph", "langgraph") from error

from factorychain.adapters.langgraph.graph_agent import GraphAgent
from factorychain.adapters.langgraph.making import agent, run_context

__all__ = ["GraphAgent", "agent", "run_context"]
