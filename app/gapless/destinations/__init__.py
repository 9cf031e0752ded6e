"""The kinds of destinations: each module beside `contract` and `registry` is one, found by its name.

A kind exports `SENDER`, a class as `contract.DestinationKind` wants it. Nothing else names a kind: settings
read its keys as its `Options` say, and `registry` finds it.
"""
