"""The record of one user, who has a place and who waits for one, and every change that is made to it.

Invariant: each change is a function from a record to the next one, without I/O. What it makes counts once it
is stored by a compare-and-set against the very record that it was made from.
"""
