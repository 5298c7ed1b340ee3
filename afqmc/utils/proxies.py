"""The proxy that the environment names for an address, to mention when a connection fails."""

from __future__ import annotations

import urllib.parse
import urllib.request

from afqmc.utils.redaction import redacted


def through_proxy(url: str) -> str:
    """Name the proxy that requests to this address use, as `` (through the proxy ...)``; empty where there is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        if urllib.request.proxy_bypass(parts.hostname or ""):
            return ""
    except ValueError:  # no valid address
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f" (through the proxy {redacted(proxy)})" if proxy else ""
