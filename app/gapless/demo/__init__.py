"""The demo: a provider that loses webhooks, the real daemon as a child process, and a consumer that checks.

Imported by the command line only. `show.run` plays the whole of it, `alone.run` the provider by itself.
Every number that is shown comes from where it is true: the provider's own events, the daemon's
`/api/status`, and what reached the consumer.
"""
