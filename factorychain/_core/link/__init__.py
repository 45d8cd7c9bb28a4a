"""The link between layers: one long-lived stream on which many runs travel side by side.

It is used three times (agents to emitter, engine to emitter, emitter to bridge) and promises: what
is acknowledged is durable; nothing is lost, doubled or reordered over any number of broken streams;
a run never has more than its window in flight, and so never holds up another.

`sender.py` and `receiver.py` are the protocol without I/O, `client.py` and `server.py` put it on a
gRPC stream. Frames are in `protos/factorychain/types/v1/link.proto`.
"""

from factorychain._core.link.client import LinkClient
from factorychain._core.link.frames import INITIAL_WINDOW_BYTES, event_cost, request_key
from factorychain._core.link.readiness import ServingOnceLinked
from factorychain._core.link.refusal import Refusal
from factorychain._core.link.run import LinkRun
from factorychain._core.link.run_sender import RunObserver
from factorychain._core.link.server import ChannelHandler, LinkHandler, LinkServer, Receipts

__all__ = [
    "INITIAL_WINDOW_BYTES",
    "ChannelHandler",
    "LinkClient",
    "LinkHandler",
    "LinkRun",
    "LinkServer",
    "Receipts",
    "Refusal",
    "RunObserver",
    "ServingOnceLinked",
    "event_cost",
    "request_key",
]
