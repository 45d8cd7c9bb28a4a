"""`factorychain demo`: the whole chain on real input, and a verdict."""
