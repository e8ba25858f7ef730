"""The cluster of docker-compose.yml, brought up by an engine that the tests run in namespaces of its own."""
