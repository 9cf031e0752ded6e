"""The HTTP of the private listener: probes, metrics, status, the overview page, and the API of `operations`.

`gapless.status` computes every figure and every trouble that is shown here.
"""
