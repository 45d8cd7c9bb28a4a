"""The `factorychain` command."""

from factorychain.cli.app import main

__all__ = ["main"]
