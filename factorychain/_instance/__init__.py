"""An agent instance: the part of a run that is next to the agent's own code.

It imports no grpc, no NATS and no telemetry SDK, because a sandbox runs exactly this in a process of
its own. Everything that crosses its border is data: a `RunSpec` in, serialized events and an `Outcome`
out, and a few requests to the `RunHost`.
"""
