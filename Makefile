# `make` lists the targets. Each makes .venv first if it is missing or older than pyproject.toml or constraints.txt.
#
# ARGS reach the script as they are typed: split at blanks, quotes group, and ( ) [ ] { } $ mean nothing special:
#     make sweep ARGS="data=digits optimizer.lr=tag(log,interval(1e-4,1e-1))"

.DEFAULT_GOAL := help
.PHONY: help sweep train ui study dashboard tensorboard compare reproduce evaluate serve promote data doctor bench compare-baselines test check clean

VENV := .venv
BIN := $(VENV)/bin/python
READY := $(VENV)/.ready
BUSY := $(VENV)/.installing
PACKAGES := $(VENV)/.packages
CHECKED := $(VENV)/.checked

# The first of these that can make the environment is used; `make PYTHON=/path/to/python3.12 …` names another.
PYTHON ?= python3.13 python3.12 python3.11 python3 python

export ARGS_AS_TYPED := $(value ARGS)
run = @$(BIN) -c 'import os, shlex, sys; os.execv(sys.executable, \
	[sys.executable, *sys.argv[1:], *shlex.split(os.environ["ARGS_AS_TYPED"])])'

# The same for a target that takes RUN, which comes first.
export RUN_AS_TYPED := $(value RUN)
on_run = @$(BIN) -c 'import os, shlex, sys; run = os.environ["RUN_AS_TYPED"]; os.execv(sys.executable, \
	[sys.executable, *sys.argv[1:], *([run] if run else []), *shlex.split(os.environ["ARGS_AS_TYPED"])])'

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

sweep: $(READY) ## search with Optuna, refit the best, test it once: make sweep ARGS="activation=relu,tanh"
	$(run) scripts/sweep.py

train: $(READY) ## one experiment, k-fold validated, refitted, tested: make train ARGS="activation=tanh"
	$(run) scripts/train.py

ui: $(READY) ## MLflow on 127.0.0.1:5000, opened at the runs table
	$(run) scripts/ui.py

study: $(READY) ## the studies of searches: list, show, export, enqueue, delete: make study ARGS="show NAME"
	$(run) scripts/study.py

dashboard: $(READY) ## optuna-dashboard on 127.0.0.1:8080: the studies of searches, live
	$(run) scripts/dashboard.py

tensorboard: $(READY) ## TensorBoard on 127.0.0.1:6006: the inside of networks trained with tracking.tensorboard=true
	$(run) -m tensorboard.main --logdir outputs --host 127.0.0.1

compare: $(READY) ## is one run better than another, or is it luck: make compare ARGS="RUN RUN"
	$(run) scripts/compare.py

reproduce: $(READY) ## train a recorded run again and compare every number: make reproduce RUN=…
	$(on_run) scripts/reproduce.py

evaluate: $(READY) ## a finished model on new labelled rows, and drift: make evaluate RUN=… ARGS="new.csv"
	$(on_run) scripts/evaluate.py

serve: $(READY) ## a finished model answers on 127.0.0.1:5001, by MLflow's scoring server: make serve RUN=…
	$(on_run) scripts/serve.py

promote: $(READY) ## register a finished model; the alias champion moves to it if it is better: make promote RUN=…
	$(on_run) scripts/promote.py

data: $(READY) ## fetch and verify the data sets: make data ARGS="mnist"
	$(run) scripts/data.py

doctor: $(READY) ## what is found here: accelerators, versions, data, stores
	$(run) scripts/doctor.py

bench: $(READY) ## speed beside others, as ratios: make bench ARGS="--quick"
	$(run) -m bench

compare-baselines: $(READY) ## a searched MLP against four other learners on public tables, with paired tests; an hour
	$(run) -m bench.baselines

# Side by side, since each waits or keeps one core busy: pip and apt, then the tests and the types. What lint and types say
# is said at the end, too, where it is seen. Without bytecode each of the hundred processes that tests start would compile
# the project anew.
beside = @$(MAKE) --no-print-directory --silent -j2
test: export PYTHONDONTWRITEBYTECODE :=
test: ## the whole test suite, and make check beside it: make test ARGS="-k folds"
	$(beside) $(READY) $(PACKAGES)
	$(beside) --keep-going tested checked; status=$$?; cat $(CHECKED); exit $$status

.PHONY: tested checked
tested:
	$(run) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

checked:
	@$(MAKE) --no-print-directory check >$(CHECKED) 2>&1 || { cat $(CHECKED) >&2; exit 1; }

check: $(READY) ## lint, format and types
	@$(BIN) -m ruff check
	@$(BIN) -m ruff format --check
	@$(BIN) -m mypy

clean: ## remove .venv and caches; results, studies and data stay
	@rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache *.egg-info
	@find bench conf pipeline scripts tests -name __pycache__ -prune -exec rm -rf {} +

in_range := import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13)
find_python = python=; \
	for each in $(PYTHON); do \
	    $$each -c '$(in_range)' 2>/dev/null || continue; \
	    if $$each -c 'import ensurepip, sqlite3, venv' 2>/dev/null; then python=$$each; break; fi; \
	    echo "$$each lacks venv or sqlite3 (Debian, Ubuntu: apt install python3-venv)." >&2; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "No usable Python among: $(PYTHON)." >&2; \
	    echo "Needed: Python 3.11, 3.12 or 3.13. Name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi

# Beside pip, which keeps one core busy and would compile only at its end. What hardly anything imports is compiled when
# it is; some packages carry files for other Pythons, which do not compile.
seldom := /(tests?|testing|graph_objs|devtools|databricks|lexers|_inductor)/
define COMPILE
import compileall, re, time
while True:
    compileall.compile_dir("$(VENV)/lib", quiet=2, rx=re.compile("$(seldom)"))
    time.sleep(8)
endef
export COMPILE

# What an interrupted installation leaves behind is unknown: its mark makes the next start begin afresh. The pip that
# Python 3.11 brings takes twice as long as a new one.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	if [ -e $(BUSY) ] || ! $(BIN) -c '$(in_range); import pip' 2>/dev/null; then \
	    $(find_python); \
	    echo "Making $(VENV) with $$($$python --version): the first time this downloads about 3 GB, 2 to 4 minutes …"; \
	    $$python -m venv --clear $(VENV); \
	else \
	    echo "Bringing $(VENV) up to date …"; \
	fi; \
	rm -f $(READY); touch $(BUSY); \
	export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt; \
	pip='$(BIN) -m pip install -qq --disable-pip-version-check --no-compile'; \
	$$pip --upgrade pip; \
	$(BIN) -c "$$COMPILE" & compiling=$$!; \
	stop() { kill $$compiling 2>/dev/null || :; }; trap stop EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	$$pip --editable '.[baselines,dashboard,postgres,dask,slurm,test,check]'; \
	stop; \
	$(BIN) -m compileall -qq -j 0 -x '$(seldom)' $(VENV)/lib || true; \
	rm $(BUSY); touch $(READY)

# Debian's packages for the tests. Who may not install them is told; the tests that need them say why they are skipped.
# Where $(VENV) is made afresh meanwhile, the mark may go with the old one: then the next start looks again.
missing = $$(for each in $$(sed 's/\#.*//' apt.txt); do \
	    dpkg-query --show --showformat '$${db:Status-Status}\n' $$each 2>/dev/null | grep -qx installed || echo $$each; \
	done)
$(PACKAGES): apt.txt
	@set -e; \
	command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || exit 0; \
	missing=$(missing); \
	if [ -n "$$missing" ]; then \
	    if [ $$(id -u) = 0 ]; then as_root=; \
	    elif sudo -n true 2>/dev/null; then as_root='sudo -n'; \
	    else echo "For all tests: sudo apt-get install" $$missing >&2; exit 0; fi; \
	    echo "Installing" $$missing "…"; \
	    { $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive \
	        apt-get install -qq --no-install-recommends $$missing >/dev/null; } || exit 0; \
	fi; \
	mkdir -p $(VENV); touch $@
