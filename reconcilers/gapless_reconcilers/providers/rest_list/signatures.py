"""Every scheme that a declaration can name; each verifies, and signs if that is possible."""

from gapless_reconcilers.providers.rest_list.body_tokens import BodyTokenSignature
from gapless_reconcilers.providers.rest_list.carried import BasicSignature, StandardSignature, TokenSignature
from gapless_reconcilers.providers.rest_list.hashed import HashSignature
from gapless_reconcilers.providers.rest_list.hmacs import HmacSignature
from gapless_reconcilers.providers.rest_list.public_keys import PublicKeySignature
from gapless_reconcilers.providers.rest_list.timed import TimedSignature
from gapless_reconcilers.providers.rest_list.tokens import JwtSignature

Signature = (
    HmacSignature
    | HashSignature
    | TimedSignature
    | StandardSignature
    | BasicSignature
    | TokenSignature
    | BodyTokenSignature
    | PublicKeySignature
    | JwtSignature
)
