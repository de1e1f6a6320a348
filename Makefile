# The project's commands. Each one sets up what it needs, so on a fresh machine `make demo` is enough.
# `make test PY=3.13 TORCH=2.11.0` does the same with that Python and that torch, in an environment of its own
VENV := .venv$(if $(PY),-$(PY))$(if $(TORCH),-torch$(TORCH))
RUN := $(VENV)/bin/python
# Many small threads on few cores are slower than one
export OMP_NUM_THREADS ?= 1
# Tests start Python hundreds of times: it keeps what it has compiled
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test docs bench
.NOTPARALLEL:

help:
	@echo 'make install   make .venv and install the package and its tools into it (2 GB; 6 GB with an NVIDIA card)'
	@echo 'make demo      from a folder of sounds to a model to new sounds, in a few minutes'
	@echo 'make test      every test: the pages, tests/, and a real browser where Chromium is found (PY=3.13, TORCH=2.11.0: with these)'
	@echo 'make docs      the docs site, into _docs/'
	@echo 'make bench     run the benchmark pages again (long)'

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@if ! $(RUN) -c 'import pip' 2>/dev/null; then \
	  for p in $(if $(PY),python$(PY),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then found=$$p; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo 'No $(if $(PY),python$(PY),Python from 3.11 to 3.14) was found: install one, then run make again.' >&2; exit 1; fi; \
	  if ! $$found -c 'import ensurepip' 2>/dev/null; then \
	    echo "$$found cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv), then run make again." >&2; exit 1; fi; \
	  echo "Making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); \
	fi
	@echo 'Installing into $(VENV)'
	@$(RUN) tools/install.py $(if $(TORCH),--torch $(TORCH))
	@touch $@

demo: install
	$(VENV)/bin/distill demo

test: install
	@$(RUN) -m pytest -n 2

docs: install
	$(RUN) tools/docs.py --strict

bench: install
	$(RUN) tools/install.py --extras dev,bench
	NB_LIMIT=7200 NB_JOBS=1 $(RUN) tools/run_nbs.py --flags slow nbs/benchmarks.ipynb nbs/benchmarks_learning.ipynb nbs/benchmarks_models.ipynb nbs/benchmarks_unseen.ipynb nbs/benchmarks_library.ipynb nbs/benchmarks_vocoders.ipynb nbs/benchmarks_base.ipynb nbs/benchmarks_ablations.ipynb
