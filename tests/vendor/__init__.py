"""A stand-in for the vendors of models: a real HTTP server that speaks their streaming protocols.

It says what a test tells it to say (`Turn`), in the protocol that it is asked in: OpenAI's chat
completions and responses, Anthropic's messages; streamed or at once. It fails as vendors fail (`Fault`),
and keeps what it received, with the times at which callers hung up.

    async with Vendor() as vendor:
        vendor.script(Turn(text=["Hel", "lo"]), Turn(calls=[Call("search", {"query": "x"})]))
        client = AsyncOpenAI(base_url=vendor.openai_url, api_key=vendor.key)

In a test, `from tests.vendor.fixture import vendor`; as a process, `python -m tests.vendor`.
"""

from tests.vendor.script import Call, Fault, Received, Turn, VendorUsage, echo
from tests.vendor.server import Vendor

__all__ = ["Call", "Fault", "Received", "Turn", "Vendor", "VendorUsage", "echo"]
