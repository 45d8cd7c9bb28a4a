"""What is kept of users, runs, threads and agents' values: how it is laid out, and how it changes.

Invariant: every key begins with its principal's own, and what others may have changed is replaced by
compare-and-set only. What a run came to is a projection of its ending in the log and of nothing else.
"""
