"""One small module per vendor: how its requests are read, and its answers and webhooks written."""
