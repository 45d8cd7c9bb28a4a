"""`factorychain new`: the folder of a first agent."""
