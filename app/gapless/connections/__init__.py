"""The connections of a listener, bounded before anything of a request is believed: in number, in time and in bytes.

`daemon.listeners` serves both listeners with it. Nothing here knows what a request means.
"""
