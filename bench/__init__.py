"""tcpha side by side with HAProxy and nginx, in the lab: `python -m bench`, or `make bench`. See docs/benchmark.md."""
