"""How a start comes to a place to run, to one in its user's queue, or to a refusal.

Invariant: a place is taken by one compare-and-set of the user's record, decided on what that very record
says, and is held by nobody but the factory, which frees it or passes it on.
"""
