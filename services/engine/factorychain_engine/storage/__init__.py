"""The engine's buckets: made, watched, made again, and what was lost with one entered again.

Invariant: nothing new is admitted while a bucket is in trouble or is being entered again; and nothing is
taken for lost because storage has not answered.
"""
