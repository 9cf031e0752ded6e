"""What the ledger's numbers prove, and what is wrong. `troubles` alone judges; all else here is figures.

`gapless status`, `/api/status`, the overview page and `/metrics` show what is computed here, and nothing of their own.
"""
