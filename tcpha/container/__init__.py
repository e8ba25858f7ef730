"""A node as a container: configuration from the environment, the agent and its server as children of process 1."""
