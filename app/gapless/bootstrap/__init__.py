"""Build the running parts from the settings: ledger, rows of the configuration, sources, destinations and runtime."""
