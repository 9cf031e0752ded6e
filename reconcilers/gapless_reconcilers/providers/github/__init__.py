"""GitHub: the webhook of a repository, an organisation or an App, and the log of its deliveries.

Sources, read November 2026: @octokit/openapi 23.0.2, @octokit/webhooks-methods 6.0.0, GitHub's pages on validating
deliveries, handling failed deliveries, redelivering, and REST rate limits. NV: not verified.
"""

from gapless_reconcilers.providers.github.provider import PROVIDER, GitHub, GitHubOptions

__all__ = ["PROVIDER", "GitHub", "GitHubOptions"]
