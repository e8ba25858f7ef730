"""The only part that touches the kernel: packets, addresses, rules, sockets, clocks."""
