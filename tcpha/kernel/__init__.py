"""The kernel fast path: programs that carry what Python decided, as C sources with the objects made from them."""
