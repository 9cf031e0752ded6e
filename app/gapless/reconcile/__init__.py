"""The reconcile road: list what the provider has, compare it with the ledger, record what was missed.

`schedule` says when, `cycle` what is to be done for one source, `pass_` reads one window of one stream,
`fetch` does the I/O. `window`, `diff`, `pace` and `budget` are pure: they decide, given values.
"""
