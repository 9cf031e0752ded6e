"""The demo: a provider that loses webhooks, the real daemon as a child process, and a consumer that checks.

Only the command line imports it. `run.run` runs the whole demo, `provider_only.run` the provider without a daemon.
Every number that is shown is read at its origin: the provider's own events, the daemon's `/api/status`, and the
events that reached the consumer.
"""
