"""Shopify's webhook subscriptions: finding ours, checking them, and creating them. Sources: see `provider`."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Registration, Subscription
from gapless_reconcilers.kit.decoders import decode_items, decode_json, decode_response
from gapless_reconcilers.kit.errors import OptionsInvalid, UnexpectedShape
from gapless_reconcilers.providers.shopify import graphql
from gapless_reconcilers.providers.shopify.graphql import ShopifyApi
from gapless_reconcilers.providers.shopify.listing import RESOURCES, STATE_TYPES, Handle
from gapless_reconcilers.providers.shopify.webhook import TOPIC_FORM

SUBSCRIPTIONS: Final = (
    "{ webhookSubscriptions(first: 250) { nodes { id topic uri format filter includeFields apiVersion { handle } } "
    "pageInfo { hasNextPage } } }"
)
_CREATE: Final = (
    "t%d: webhookSubscriptionCreate(topic: %s, webhookSubscription: $at) "
    "{ webhookSubscription { id } userErrors { message } }"
)


class SubscriptionNode(msgspec.Struct, gc=False, rename="camel"):
    """One subscription: a topic and its address."""

    id: str
    topic: str
    uri: str
    format: str
    filter: str | None = None
    include_fields: tuple[str, ...] = ()
    api_version: Handle | None = None

    @property
    def is_whole(self) -> bool:
        """True if it sends every object of its topic, with the fields that are compared with the list."""
        fields = self.include_fields
        return self.format == "JSON" and not self.filter and (not fields or {"id", "updated_at"} <= set(fields))


class _Created(msgspec.Struct, gc=False, rename="camel"):
    user_errors: list[graphql.GraphError]
    webhook_subscription: graphql.Identified | None = None


def read(api: ShopifyApi, response: httpx.Response, webhook_url: str) -> Subscription:
    """Return the subscriptions at `webhook_url`, else those with the same path, combined.

    There is no disabled state: after 8 failures in a row Shopify deletes a subscription, topic by topic.
    So the update topic of each resource must exist and be complete. While one is not, `types` are unknown, and the
    engine continues to expect the types it knew. Raises `UnexpectedShape` if Shopify cannot list them.
    """
    place, path = "data.webhookSubscriptions", urlsplit(webhook_url).path
    rows = graphql.read_data(response, "webhookSubscriptions", graphql.Connection)
    if rows.page_info.has_next_page:
        most = f"at most {graphql.MOST_PER_PAGE} subscriptions"
        raise UnexpectedShape(f"{place}.pageInfo.hasNextPage", "true", most)
    nodes = decode_items(rows.nodes, SubscriptionNode, f"{place}.nodes")
    same = [node for node in nodes if node.uri == webhook_url]  # else by the path: our public name may be unknown
    found = same or [node for node in nodes if urlsplit(node.uri).path == path]
    known, version = (found[0].id, found[0].api_version) if found else (None, None)
    topics = {_to_topic(node.topic) for node in found if node.is_whole}
    absent = {f"{name}/{RESOURCES[name].update}" for name in api.resources} - topics
    if not found or absent:
        why = f"no whole subscription at {path} for {', '.join(sorted(absent)) or 'any topic'}"
        hint = "Shopify may have deleted it; one of shopify.app.toml is not listed, see subscriptions_in_app_config"
        return Subscription(healthy=False, reason=f"{why}; {hint}", id=known, streams_covered=True)
    return Subscription(
        healthy=True,
        reason="",
        id=known,
        types=tuple(sorted(topics | {f"{name}.state" for name in api.resources})),
        api_version=version.handle if version else None,
        streams_covered=True,
    )


def register_request(api: ShopifyApi, webhook_url: str, types: Sequence[str]) -> httpx.Request:
    """Return one request with a mutation for each topic of `types`; empty: the usual topics of each resource.

    A state is not a topic. Shopify always signs with the client secret.
    """
    usual = [f"{name}/{act}" for name in api.resources for act in (RESOURCES[name].update, *RESOURCES[name].others)]
    wanted = dict[str, None]()
    for pattern in types or ["*"]:
        topics = [topic for topic in usual if topic.startswith(pattern[:-1])] if pattern.endswith("*") else [pattern]
        wanted |= dict.fromkeys(topics)
    topics = [topic for topic in wanted if topic not in STATE_TYPES]
    if not topics:
        raise OptionsInvalid(f"{', '.join(types)} names no topic that can be subscribed to")
    mutations = " ".join(_CREATE % (at, _to_enum(topic)) for at, topic in enumerate(topics))
    text = f"mutation($at: WebhookSubscriptionInput!) {{ {mutations} }}"
    return api.post(text, {"at": {"uri": webhook_url, "format": "JSON"}})


def read_registration(response: httpx.Response) -> Registration:
    """Return the first new subscription; a topic that already has one is no error (its wording is NV).

    Raises `OptionsInvalid` if one was refused.
    """
    made = list[str]()
    for name, raw in decode_response(response, graphql.GraphAnswer).data.items():
        created = decode_json(raw, _Created, f"data.{name}")
        refusals = [error.message for error in created.user_errors if "already been taken" not in error.message]
        if refusals:
            raise OptionsInvalid(f"Shopify refused a subscription: {refusals[0][:200]}")
        if created.webhook_subscription is not None:
            made.append(created.webhook_subscription.id)
    return Registration(id=made[0] if made else "unchanged")


def _to_topic(enum: str) -> str:
    """Return `orders/partially_fulfilled` for `ORDERS_PARTIALLY_FULFILLED`; otherwise the last word is the action."""
    words = enum.lower()
    for name in RESOURCES:
        if words.startswith(f"{name}_") and not words.startswith(("customers_marketing_", "customers_email_")):
            return f"{name}/{words[len(name) + 1 :]}"
    group, _, action = words.rpartition("_")
    return f"{group}/{action}"


def _to_enum(topic: str) -> str:
    """Return the name of a topic in GraphQL. Raises `OptionsInvalid`."""
    if not TOPIC_FORM.fullmatch(topic):
        raise OptionsInvalid(f"{topic!r} is no topic; wanted one such as orders/updated")
    return topic.upper().replace("/", "_").replace(".", "_")
