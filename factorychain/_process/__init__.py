"""Agents in processes of their own: what runs in the zygote and in the processes that it forks.

It imports the standard library, `factorychain._instance` and the sandbox, and no grpc, no telemetry SDK
and no service: whatever is loaded here is in every agent's memory.
"""
