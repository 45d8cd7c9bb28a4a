"""The edge: browsers and other clients, over WebSocket and HTTP.

`session` and what it uses (`frames`, `limits`, `outbox`, `feeds`) know no sockets; `socket`, `http` and
`server` are the thin adapters around them; `operations` calls the engine and the hub.
"""
