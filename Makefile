# Each target does all of its own set-up in .venv: see build_support/set_up.sh.

SIZE ?= 1G
DIR ?=
VENV ?= .venv
PYTHONS ?= 3.11 3.12 3.13
SOAK_SECONDS ?= 3600

SOURCES := setup.py pyproject.toml build_support/set_up.sh $(wildcard ssh_fast/*.pyx ssh_fast/*.pxd)
RUN := $(VENV)/bin/python
# What the sanitizer build tests: the compiled core, and what drives it through every cipher and message.
CORE_TESTS ?= tests/core tests/transport tests/channel tests/sftp
# As many processes as there are processors; the tests of a file share one, and so what they started.
WORKERS ?= --numprocesses=auto --maxprocesses=8 --dist=loadfile

# Modules are compiled once, not at every start: users have them compiled too.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: demo test test-all soak bench lint sanitize peers clean

demo: $(VENV)/.ready-demo
	$(RUN) examples/demo.py --size $(SIZE) $(if $(DIR),--dir $(DIR))

test: $(VENV)/.ready-test $(if $(CI),peers)
	$(RUN) -m pytest $(WORKERS) $(ARGS)

test-all:
	build_support/test_all.sh $(PYTHONS)

# Forwarding for an hour, where `make test` has a third of a minute.
soak: $(VENV)/.ready-test
	SSH_FAST_SOAK_SECONDS=$(SOAK_SECONDS) $(RUN) -m pytest -s tests/interop/test_soak.py

bench: $(VENV)/.ready-bench
	$(RUN) -m benchmarks $(ARGS)

lint: $(VENV)/.ready-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

sanitize: $(VENV)/.ready-test
	build_support/sanitize.sh $(RUN) $(WORKERS) $(CORE_TESTS)

# The SSH programs of others that the interop tests talk to; what is absent is skipped and named, except in CI.
peers:
	build_support/install_peers.sh

# Programs written for AsyncSSH, run on this package in an environment of their own.
ecosystem: $(VENV)/.ready-test
	build_support/ecosystem.sh $(RUN) .venv-ecosystem
	$(RUN) -m pytest tests/ecosystem/test_programs.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	rm -f ssh_fast/*.so ssh_fast/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for all: a target adds the extras that it needs to those that are there.
$(VENV)/.ready-%: $(SOURCES)
	build_support/set_up.sh $(VENV) $*
	@touch $@
