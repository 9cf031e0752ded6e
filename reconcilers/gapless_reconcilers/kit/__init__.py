"""The parts that every provider uses: the contract, its errors, and small pure functions."""
