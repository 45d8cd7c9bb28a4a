"""The service's side of agents in processes of their own.

Invariant: nothing that a run process says is believed; whatever one does ends that one alone.
"""
