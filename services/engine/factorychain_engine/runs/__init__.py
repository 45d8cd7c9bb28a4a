"""Runs under supervision: heard, told to end, begun again or settled, and what is written of them meanwhile.

Invariant: supervision of a run goes on until its ending is in the log, or another engine has the run.
"""
