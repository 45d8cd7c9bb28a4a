"""`make bench`: the raw gRPC floor and the product, measured in one run."""
