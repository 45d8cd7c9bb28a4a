"""The model gateway: how runs reach models and other services without ever holding a key of theirs.

A run has a key of its own, which means something here alone and ends with it; the operator's credentials
are added on the way out. `server` is the component; `keys`, `budgets`, `frames`, `readers` and `refusals`
decide and do no I/O.
"""
