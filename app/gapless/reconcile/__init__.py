"""Reconciliation: list what the provider has, compare it with the ledger, record what was missed.

`scheduler` decides when a source is read. `source_run` does everything that is due for one source, `stream_run` for one
stream of it. `pass_run` reads one window of a stream; `consume_run` reads a stream whose provider forgets what it has
handed out. `recovery` fetches single missing events. The others are pure: they decide from values.

What a source may spend is decided by `purse`, how often its streams are read by `heartbeat`, when one is looked at out
of turn by `urgency`, how old an event must be to count by `lateness`, and `reading_plan` says what follows from it all.
"""
