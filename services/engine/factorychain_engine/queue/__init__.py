"""Runs that wait: whose turn it is, who is started or ended, and what their users are told meanwhile.

Invariant: nothing here is right because one engine alone does it. Every decision is a change of the user's
record (`admission.queueing`), so what is done twice, or by two engines, changes it once.
"""
