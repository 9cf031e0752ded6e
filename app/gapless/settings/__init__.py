"""Settings: one frozen tree from `gapless.toml` and the environment, read once by the command line and passed down."""

from gapless.settings.declarations import DECLARED, declared_file
from gapless.settings.encryption_keys import read_keys
from gapless.settings.load import SettingsInvalid, is_loopback, load, remarks
from gapless.settings.provider_options import (
    build_provider,
    declared_providers,
    lacks_key,
    option_files,
    resolve_options,
    signing_secret,
)
from gapless.settings.secret_files import secret_paths
from gapless.settings.secrets import SecretRef, SecretUnavailable, weakness_of
from gapless.settings.tree import (
    Confirmation,
    ConnectionSettings,
    DestinationSettings,
    EncryptionSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    OidcSettings,
    OnVersionMismatch,
    PaceStrategy,
    PrivateSettings,
    PublicSettings,
    QuarantineSettings,
    ReadBudgetSettings,
    RetentionSettings,
    Settings,
    SourceSettings,
    StoreSettings,
)

__all__ = [
    "DECLARED",
    "Confirmation",
    "ConnectionSettings",
    "DestinationSettings",
    "EncryptionSettings",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "OidcSettings",
    "OnVersionMismatch",
    "PaceStrategy",
    "PrivateSettings",
    "PublicSettings",
    "QuarantineSettings",
    "ReadBudgetSettings",
    "RetentionSettings",
    "SecretRef",
    "SecretUnavailable",
    "Settings",
    "SettingsInvalid",
    "SourceSettings",
    "StoreSettings",
    "build_provider",
    "declared_file",
    "declared_providers",
    "is_loopback",
    "lacks_key",
    "load",
    "option_files",
    "read_keys",
    "remarks",
    "resolve_options",
    "secret_paths",
    "signing_secret",
    "weakness_of",
]
