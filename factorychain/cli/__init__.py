"""The `factorychain` command."""

import gc

# What is imported stays. Looking through it again and again would take a fifth of the time to the first
# line of output.
_collects = gc.isenabled()
gc.disable()

from factorychain.cli.app import main

if _collects:
    gc.freeze()
    gc.enable()

__all__ = ["main"]
