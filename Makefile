# `make serve` and `make test` need nothing but make and a Python of 3.11 or later: the rest is fetched here.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

HOST ?= 127.0.0.1
PORT ?= 8000
# How many tests run at once.
JOBS ?= 2
# How many scenarios `make simulate` runs, from which on, and the file from which it goes on if interrupted.
SEEDS ?= 10000
FROM ?= 0
STATE ?=
# How long `make fuzz` takes for each of its targets.
SECONDS ?= 60
# What else to tell pytest, as in make test ARGS='-k frames'. Only all tests cover everything.
ARGS ?=

VENV := .venv
CONFORMANCE := .venv-conformance
PY := $(VENV)/bin/python
PYTEST = $(PY) -m pytest -n $(JOBS) --dist loadgroup
CORE := tests/core tests/simulation

# Hundreds of processes are started here: each would compile all modules anew where this is set, as some images do.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

# With the rights that we have: root's, those that sudo gives without a question, or none.
ROOT = if [ "$$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null; then as=sudo; \
       else echo "make: $$package is missing; install it as root: apt-get install $$package" >&2; exit 1; fi
APT = $(ROOT); \
      echo "make: installing $$package" >&2; \
      $$as apt-get -qq update && \
      $$as env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$package >/dev/null

.PHONY: help serve test conformance simulate fuzz soak audit bench check lint types imports clean venv

help:
	@echo 'make serve [PORT=8000] [HOST=127.0.0.1]  serve, and print where the test pages are'
	@echo 'make test [ARGS=...]                     run all tests'
	@echo 'make conformance                         run all Autobahn cases'
	@echo 'make simulate [SEEDS=10000] [STATE=file] run that many simulated scenarios'
	@echo 'make fuzz [SECONDS=60]                   fuzz each target for so long'
	@echo 'make soak                                send and save files of gigabytes over connections that break'
	@echo 'make audit                               look up known vulnerabilities of what is installed'
	@echo 'make bench                               measure the fan-out'
	@echo 'make check                               lint, types and the direction of imports'
	@echo 'make venv                                make $(VENV) with all that tests and checks need'
	@echo 'make clean                               remove what these have made'

# With exec the server has the place of the shell, and gets the signals that are meant for it.
serve: $(VENV)/.serve
	@exec env REALTIME_ALLOW_ANONYMOUS=true $(VENV)/bin/rtcore serve --host $(HOST) --port $(PORT)

# Measuring what is covered takes three times as long, and is done where all of the core is.
test: $(VENV)/.test $(CONFORMANCE)/.made chromium coturn
ifeq ($(ARGS),)
	$(PYTEST) $(CORE) -m 'not many_seeds' --cov --cov-report=term --cov-fail-under=100
	$(PYTEST) tests $(CORE:%=--ignore=%)
	$(PYTEST) tests/simulation -m many_seeds
else
	$(PYTEST) $(ARGS)
endif

conformance: $(VENV)/.test $(CONFORMANCE)/.made
	$(PY) -m pytest tests/conformance --all-cases $(ARGS)

simulate: $(VENV)/.test
	$(PY) -m tests.simulation.campaign --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS) $(if $(STATE),--state $(STATE))

# Not among the tests: Atheris has no release for each Python, and what it finds depends on how long it looks.
fuzz: $(VENV)/.test
	$(PY) -m pip install --quiet 'atheris>=2.3'
	$(PY) -m tests.fuzz.campaign --seconds $(SECONDS)

# Not among the tests: it takes minutes, and some 10 GB of the disk.
soak: $(VENV)/.test
	$(PY) -m tests.soak.campaign $(ARGS)

# Not among the checks: it asks pypi.org, and its answer changes while nothing here does. What it cannot look up is a failure.
audit: $(VENV)/.serve
	@$(PY) -m venv --clear $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install 'pip-audit>=2.7'
	$(VENV)/audit/bin/pip-audit --strict --path $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

bench: $(VENV)/.test
	$(PY) -m benchmarks.fanout $(ARGS)

check: lint types imports

lint: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: $(VENV)/.test
	$(VENV)/bin/mypy

imports: $(VENV)/.test
	$(VENV)/bin/lint-imports

venv: $(VENV)/.test

# Not files: where they are is for the system to say.
.PHONY: chromium coturn
chromium:
	@command -v chromium >/dev/null || { package=chromium; $(APT); }

# The tests start one of their own. A masked unit is what keeps the package from starting its relay, now and at each
# boot; without systemd it starts none unless /etc/default/coturn says so.
UNITS := /etc/systemd/system
coturn:
	@command -v turnserver >/dev/null || { package=coturn; $(ROOT); \
	    [ -e $(UNITS)/coturn.service ] || { \
	        $$as mkdir -p $(UNITS) && $$as ln -s /dev/null $(UNITS)/coturn.service && \
	        echo 'make: coturn will not run as a service, unless you say: systemctl unmask coturn' >&2; \
	    } || exit 1; \
	    $(APT); }

# Each stamp is younger than what says what to install: that is installed.
$(VENV)/.serve: pyproject.toml Makefile $(VENV)/.made
	$(PY) -m pip install --editable '.[trio]'
	@touch $@

$(VENV)/.test: pyproject.toml Makefile $(VENV)/.made
	$(PY) -m pip install --editable '.[all]' --group test --group check
	@touch $@ $(VENV)/.serve

$(CONFORMANCE)/.made: $(VENV)/.made
	@# Of its own, since kosoku brings modules named like other people's.
	@$(PY) -m venv --clear $(CONFORMANCE)
	$(CONFORMANCE)/bin/python -m pip install 'kosoku==0.1.*'
	@touch $@

# python3 if it is new enough, or else any that is. Each is asked, since a name on the path may be a stand-in
# that runs nothing. ensurepip is what Debian keeps in a package of its own, python3-venv.
$(VENV)/.made:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	    python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "make: Python 3.11 or later is needed; python3 is $$(python3 -V 2>&1 || true)" >&2; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    package=$$($$python -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'); $(APT); \
	fi; \
	echo "make: making $(VENV) with $$($$python -V)" >&2; \
	$$python -m venv --clear $(VENV)
	@# Dependency groups came with 25.1.
	@$(PY) -m pip install --upgrade 'pip>=25.1'
	@touch $@

clean:
	rm -rf $(VENV) $(CONFORMANCE) dist build .coverage .coverage.* .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
