"""For authors of providers: the contract suite, its broken providers, and a fake provider that serves HTTP."""
