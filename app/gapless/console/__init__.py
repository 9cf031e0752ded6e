"""The private listener: probes, metrics, status, one page, and the way in to `operations`.

`standing` says what the ledger's figures prove; everything here that shows a number shows it.
"""
