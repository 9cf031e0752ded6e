"""The private listener: probes, metrics, status, one page, and the way in to `operations`.

`gapless.status` says what the ledger's figures prove and what is wrong; what is shown here comes from there.
"""
