"""One module or package for each vendor that needs code. Each exports `PROVIDER`."""
