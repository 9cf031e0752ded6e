"""What a person can have done, by a command, by the API or on a page: each operation beside what it takes.

`console` and `cli` ask for operations; neither does anything to the ledger by itself.
"""
