"""Base classes of errors that become exit codes. The command line imports these, not the packages that raise them."""


class UserError(Exception):
    """The call or the configuration is wrong: exit code 2. The message says what, where, got, wanted, what next."""


class Unavailable(Exception):
    """The store, the daemon or the provider cannot be reached, or cannot do it now: exit code 3."""
