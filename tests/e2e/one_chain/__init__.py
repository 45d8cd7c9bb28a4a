"""Tests that share one chain, and so go to one worker: users of their own keep them apart."""
