"""Transaction tokens: what the engine signs them with, what a run's says, and how anybody verifies them.

Invariant: nothing but a run's place, and the limits of its user, decides what its tokens say; and of keys
only the public parts leave.
"""
