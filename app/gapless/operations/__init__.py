"""The operations that a person can start by a command or through the API, each with its request type.

`console` and `cli` call these operations. They never write to the ledger themselves.
"""
