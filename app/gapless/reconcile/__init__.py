"""Reconciliation: list what the provider has, compare it with the ledger, record what was missed.

`scheduler` decides when a source is read. `source_run` does everything that is due for one source, `stream_run` for one
stream of it. `pass_run` reads one window of a stream; `consume_run` reads a stream whose provider forgets what it has
handed out. `recovery` fetches single missing events. `window`, `diff` and `pace` are pure: they decide from values.
"""
