"""Agents that come with factorychain."""
