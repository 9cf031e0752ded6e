"""The only sender of requests to providers: requests, pages, health."""
