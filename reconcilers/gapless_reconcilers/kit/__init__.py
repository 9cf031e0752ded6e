"""What every provider is made of: the contract, its errors, and small pure parts."""
