"""The status report: what the ledger's numbers prove, and what is wrong.

`gapless status`, `/api/status`, the overview page and `/metrics` show what is computed here, and nothing of their own.
`troubles` alone judges; the other modules compute, hold and format figures.
"""
