"""The pages of the console, made on the server."""
