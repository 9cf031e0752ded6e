"""The private listener: probes, metrics, status, one page, and the operations behind the commands that write.

`standing` says what the ledger's figures prove; everything here that shows a number shows it.
"""
