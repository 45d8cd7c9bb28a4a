"""What all four services share; not part of the public library."""
