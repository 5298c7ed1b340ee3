"""Name the proxy in messages about failed connections."""

from __future__ import annotations

import urllib.parse
import urllib.request

from afqmc.utils.redaction import redacted


def through_proxy(url: str) -> str:
    """Return `` (through the proxy ...)`` if the environment sets a proxy for this URL, else an empty text."""
    try:
        address = urllib.parse.urlsplit(url)
        if urllib.request.proxy_bypass(address.hostname or ""):
            return ""
    except ValueError:  # an invalid URL
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return f" (through the proxy {redacted(proxy)})" if proxy else ""
