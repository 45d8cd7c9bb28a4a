"""The agents layer as the engine sees it: its replicas, which of them gets the next run, and a run's life there.

Invariant: what was not answered is not known. A call that fails says nothing about its run, and a replica
that has not said how much room it has is not taken for a full one.
"""
