"""A storm: faults of every kind over a running daemon, and a proof afterwards that nothing was lost."""
