"""End to end: the real five processes, real sockets."""
