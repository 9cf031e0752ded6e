"""The formats of the vendors, one module each: reading requests, and writing responses and webhooks.

They are written from the vendors' pages and libraries, apart from the providers: nothing here imports a provider or
reads a declaration, so that an error there is not repeated here.
"""
