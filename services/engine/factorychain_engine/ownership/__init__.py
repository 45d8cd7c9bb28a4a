"""Which engine looks after a run: who lives, who is gone, and who takes over what nobody looks after.

Invariant: a place is never freed because of its owner, it passes to another one: from an engine that has
handed it over, or that this one has found missing for a whole grace period in which it could see storage.
"""
