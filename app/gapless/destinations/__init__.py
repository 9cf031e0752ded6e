"""The kinds of destinations: each module here except `contract` and `registry` is a kind, found by its name.

A kind exports `SENDER`, a class that satisfies `contract.DestinationKind`. Nothing else names a kind: settings
read its keys by its `Options`, and `registry` finds it.
"""
