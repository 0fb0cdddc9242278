"""What a studio needs of this machine to reach package registries: a corporate proxy, a private certificate."""

import os

PASSED_ON = (
    "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip


def studio_environment() -> dict[str, str]:
    """The variables of ours that a studio's package tools need too."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
