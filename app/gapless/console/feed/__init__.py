"""The live stream: events as they are recorded, to any number of listeners over WebSockets.

`hub` reads the ledger once for all who are up to date, `session` serves one listener, `messages` is what they are sent.
"""
