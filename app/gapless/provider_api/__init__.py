"""The only sender of requests to providers: single requests, pages of lists, and health checks."""
