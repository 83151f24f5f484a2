"""What a bench compares, each in a process, and if need be an environment, of its own."""
