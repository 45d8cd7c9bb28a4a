"""Pydantic AI: an `Agent`, as its author made it, as an agent of the chain.

```python
support = Agent("openai:gpt-5", tools=[…])               # factorychain up --agents my.module:support
helper = agent(support, name="helper", network_ports=[443])    # or with choices of one's own
```
"""

from __future__ import annotations

from factorychain.adapters.adapted import MissingLibrary

try:
    import pydantic_ai  # noqa: F401 - what follows needs it
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("pydantic_ai", "pydantic_graph"):
        raise
    raise MissingLibrary("pydantic_ai", error.name or "pydantic_ai", "pydantic-ai") from error

from factorychain.adapters.pydantic_ai.pydantic_agent import PydanticAgent
from factorychain.adapters.pydantic_ai.serving import agent

__all__ = ["PydanticAgent", "agent"]
