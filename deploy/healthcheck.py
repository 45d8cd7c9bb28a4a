"""Whether a service in this container can take work: exit status 0, or 1 and why.

healthcheck.py grpc HOST:PORT    asks grpc.health.v1
healthcheck.py http URL          expects status 200
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 3.0


def grpc_problem(address: str) -> str | None:
    """What keeps the gRPC server at `host:port` from serving; None if nothing does."""
    import grpc
    from grpc_health.v1 import health_pb2

    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return None if name == "SERVING" else str(name)


def http_problem(url: str) -> str | None:
    """What keeps the HTTP server at `url` from answering 200; None if nothing does."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if status == 200 else f"status {status}"


CHECKS = {"grpc": grpc_problem, "http": http_problem}


def main(arguments: list[str]) -> int:
    """Run one check; its exit status."""
    if len(arguments) != 2 or arguments[0] not in CHECKS:
        print(__doc__, file=sys.stderr)
        return 2
    problem = CHECKS[arguments[0]](arguments[1])
    if problem is not None:
        print(f"{arguments[1]} does not serve: {problem}", file=sys.stderr)
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
