"""From settings to running parts: the ledger, the rows of what is configured, sources, destinations, the runtime."""
