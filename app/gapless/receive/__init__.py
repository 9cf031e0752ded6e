"""The receive road: from a POST to a durable record, and only then to its answer.

`server.build_app` makes the public application; the daemon runs `Intake.watch` and `Quarantine.run` beside it.
"""
