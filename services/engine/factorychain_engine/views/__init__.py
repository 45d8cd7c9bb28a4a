"""What a principal sees of its own runs and threads, page by page, and an agent of the thread that it runs in.

Invariant: everything is found under the caller's own key. Looking changes nothing, except that a record is
brought up to its run's ending in the log.
"""
