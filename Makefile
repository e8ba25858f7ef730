# Everything a developer or an operator types. `make` alone lists it.
#
# The targets that need the environment call tools/bootstrap, which installs what is missing and is quick when nothing is.

VENV    := .venv
PYTHON  := $(VENV)/bin/python
FUZZVENV := .venv-fuzz
FUZZ_S  ?= 60
FUZZ_TARGET ?=
BENCH_ARGS ?=
PREFIX  := /opt/tcpha
CONF    := /etc/tcpha
UNITS   := /etc/systemd/system

# A root shell made by `su` may lack the places where iptables and nginx live.
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help venv format check test test-all test-long compose-test fuzz demo bench bench-micro wire kernel install uninstall clean secret

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## install what is missing: packages (as root), then .venv
	@tools/bootstrap lab $(VENV)

format: venv ## put every file into the one layout
	@$(PYTHON) -m ruff format
	@$(PYTHON) -m ruff check --fix

check: venv ## the gate: format, lint, types, unit and packet tests, the fuzzers' corpus; needs no root once installed
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m mypy
	@$(PYTHON) -m pytest -q tests/unit tests/packet tests/fuzz

test: venv ## every test; as root, with real kernels in network namespaces
	@$(PYTHON) -m pytest

test-all: venv ## the engine's tests over every engine, with offloads and without, MTU 1500 and 9000: 16 runs, an hour or two (root)
	@$(PYTHON) -m tests.matrix

test-long: venv ## the endurance tests at full length: 10,000 connections; takes minutes (root)
	@TCPHA_LONG=1 $(PYTHON) -m pytest -m long

compose-test: venv ## docker-compose.yml, brought up and tried in an engine of its own; takes two to five minutes (root)
	@tools/container-engine
	@$(PYTHON) -m pytest -m compose tests/compose

fuzz: ## search for octets that break a decoder or a core: FUZZ_S=60 s for each target, FUZZ_TARGET="NAME..."
	@tools/bootstrap fuzz $(FUZZVENV)
	@nice -n 19 $(FUZZVENV)/bin/python -m tests.fuzz --seconds $(FUZZ_S) $(FUZZ_TARGET)

demo: venv ## a cluster on this machine, requests through it, one connection drawn (root)
	@$(PYTHON) -m tcpha.lab.demo

bench: ## side by side with HAProxy and nginx: bench/results.json, .svg, .md (root); BENCH_ARGS=--quick: under 4 minutes
	@tools/bootstrap bench $(VENV)
	@$(PYTHON) -m bench $(BENCH_ARGS)

bench-micro: venv ## time the inner loops, with pytest-benchmark
	@$(PYTHON) -m pytest bench --benchmark-only --benchmark-time-unit=us --benchmark-columns=min,median,rounds

wire: venv ## write docs/wire.md again from the code
	@$(PYTHON) -m tcpha.proto.wiredoc

# Debian 12's clang 14; nothing of the place or the time gets into an object, so every build gives the same octets.
KERNEL_OBJECTS ?= tcpha/kernel
KERNEL_CFLAGS  := -target bpfel -mcpu=v3 -O2 -g -std=gnu11 -Wall -Wextra -Werror -fno-stack-protector \
	-fno-ident -fdebug-compilation-dir=. -I/usr/include/$(shell uname -m)-linux-gnu

kernel: ## compile the programs of the kernel fast path (tools/bootstrap kernel .venv); the objects are in the repository
	@for source in tcpha/kernel/*.bpf.c; do \
		object=$(KERNEL_OBJECTS)/$$(basename $${source%.c}).o; \
		clang $(KERNEL_CFLAGS) -c $$source -o $$object && llvm-strip -g $$object && \
		llvm-objcopy --remove-section=.BTF.ext --remove-section=.rel.BTF.ext --remove-section=.rel.BTF \
			--remove-section=.llvm_addrsig $$object || exit 1; \
	done

install: ## on a real host, as root: /opt/tcpha (PREFIX, a directory of its own), samples in /etc/tcpha, systemd units
	@[ "$$(id -u)" = 0 ] || { echo "make install: needs root" >&2; exit 1; }
	@tools/bootstrap service "$(PREFIX)"
	@install -d -m 755 $(CONF)
	@for sample in etc/*.conf etc/*.conf.detail; do \
		target=$(CONF)/$${sample##*/}; \
		[ -e "$$target" ] || install -m 644 "$$sample" "$$target"; \
	done
	@if [ -d $(UNITS) ]; then \
		for unit in etc/systemd/*.service; do sed 's|/opt/tcpha|$(PREFIX)|; s|/etc/tcpha|$(CONF)|' "$$unit" >"$(UNITS)/$${unit##*/}"; done; \
		systemctl daemon-reload 2>/dev/null || true; \
	fi
	@echo "Installed. Next: a secret (make secret), $(CONF)/tcphafe.conf or tcphabe.conf, then"
	@if [ -d $(UNITS) ]; then echo "systemctl enable --now tcpha-fe (front end) or tcpha-be (back end)."; \
	else echo "$(PREFIX)/bin/python -P -m tcpha.fe (front end) or -m tcpha.be (back end); there is no systemd here."; fi

uninstall: ## stop, tidy this host up, remove what install put there; /etc/tcpha stays
	@[ "$$(id -u)" = 0 ] || { echo "make uninstall: needs root" >&2; exit 1; }
	@tools/bootstrap check "$(PREFIX)"
	@systemctl --quiet disable --now tcpha-fe tcpha-be 2>/dev/null || true
	@for role in fe be; do \
		if [ -e "$(CONF)/tcpha$$role.conf" ] && "$(PREFIX)/bin/python" -P -c 'import tcpha' 2>/dev/null; then \
			"$(PREFIX)/bin/python" -P -m "tcpha.$$role" --clean -c "$(CONF)/tcpha$$role.conf" || exit 1; \
		fi; \
	done
	@rm -f $(UNITS)/tcpha-fe.service $(UNITS)/tcpha-be.service
	@systemctl daemon-reload 2>/dev/null || true
	@tools/bootstrap remove "$(PREFIX)"
	@if [ -d $(CONF) ]; then echo "Removed. $(CONF) stays: it holds your configuration and secret."; else echo "Removed."; fi

secret: ## how to make the secret that the nodes share
	@echo "One secret for all nodes. Make it once, on one of them, as root:"
	@echo
	@echo "  install -d -m 755 /etc/tcpha"
	@echo "  (umask 077; python3 -c 'import secrets; print(0, secrets.token_hex(32))' >/etc/tcpha/secret)"
	@echo
	@echo "and copy it to the others (scp -p keeps mode 0600). Nobody but root may read it: the processes refuse to start else."

clean: ## remove everything that was built here
	@rm -rf $(VENV) $(FUZZVENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
