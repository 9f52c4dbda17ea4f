"""The HTTP API: `app.build(services)` makes the ASGI application that Ray Serve runs (serve_apps/serve.py).

A request passes: edge (paths, headers, deadline) → auth (token → principal) → router (input → typed question) →
FanOut or an injected service → answers (JSON, ETag), or problems (RFC 9457). Nothing here blocks the event loop:
shards are read on threads of their own, services on the default ones.
"""
