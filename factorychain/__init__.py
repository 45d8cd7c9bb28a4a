"""factorychain: real-time, multi-user AI chat as a chain of four gRPC factories."""
