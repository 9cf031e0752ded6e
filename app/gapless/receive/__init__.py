"""Receives webhooks: verifies a POST, records its events durably, and only then answers 2xx.

`server.build_app` makes the public application; the daemon runs `Admission.watch` and `Quarantine.run` beside it.
"""
