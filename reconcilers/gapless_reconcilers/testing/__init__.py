"""For authors of providers: the contract suite with its broken providers, and a fake provider that serves HTTP."""
