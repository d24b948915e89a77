"""httpx2 for what speaks no TLS: by itself it loads the world's authorities for each client, and each takes 25 ms."""

from __future__ import annotations

import ssl
from functools import partial

import httpx2

#: Trusts nobody.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx2.get, verify=PLAIN)
post = partial(httpx2.post, verify=PLAIN)
request = partial(httpx2.request, verify=PLAIN)
stream = partial(httpx2.stream, verify=PLAIN)
Client = partial(httpx2.Client, verify=PLAIN)
HTTPTransport = partial(httpx2.HTTPTransport, verify=PLAIN)
