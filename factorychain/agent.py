"""The base class of agents.

```python
class Researcher(Agent):
    \"\"\"Answers questions from a folder of documents.\"\"\"

    name = "researcher"

    def __init__(self, library: DocumentLibrary) -> None:
        self.library = library

    @tool
    async def search(self, query: str, limit: int = 5) -> list[Passage]:
        \"\"\"Find passages.\"\"\"
        return await self.library.search(query, limit)

    async def run(self, ctx: RunContext, text: str) -> str:
        await ctx.think("Looking for the passages that mention it")
        hits = await self.search(query=text)
        ...
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from factorychain._instance.tool_source import ToolSource


class Agent:
    """Makes an answer from a user's input; one instance per run, made from its annotated constructor.

    A subclass defines `run(self, ctx, input)`, asynchronous or not. The annotation of its second
    argument selects what it gets: `str` (the text), `Input`, or a pydantic model (from the input's
    `data`). What it returns becomes the run's output. The text of `AgentError` reaches the user,
    anything else that it raises says "The agent failed", and the traceback goes to the log.
    """

    name: ClassVar[str] = ""
    """What users start; from the class's name if empty (`MyAgent` is `my-agent`)."""
    isolation: ClassVar[str] = ""
    """`process` (a process for each run) or `task` (trusted, beside others); empty: the operator's."""
    memory_bytes: ClassVar[int] = 0
    """Memory limit in a process of its own; 0: the operator's."""
    cpu_s: ClassVar[float] = 0.0
    """Processor time limit in a process of its own; 0: the operator's."""
    lifetime_s: ClassVar[float] = 0.0
    """Time limit of a run; 0: the operator's."""
    repeat_safe: ClassVar[bool] = False
    """Whether a run that was lost with its replica may be started again."""
    read_paths: ClassVar[Sequence[str]] = ()
    """Files and folders that an isolated agent may read, seen from where the service was started."""
    network_ports: ClassVar[Sequence[int]] = ()
    """TCP ports that an isolated agent may connect to."""
    env: ClassVar[Sequence[str]] = ()
    """Environment variables that an isolated agent sees."""
    processes: ClassVar[bool] = False
    """Whether an isolated agent may start other processes, where the operator allows it."""
    tools: ClassVar[Sequence[Callable[..., object] | ToolSource]] = ()
    """Functions besides the methods marked with `tool`, and `MCPServer`s."""
