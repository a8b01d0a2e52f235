# Two commands set everything up on a fresh machine; the first run takes a few minutes.
#   make demo   the main job on the built-in default: MaskCut, an AP table, an overlay sheet
#   make test   the tests, in two processes
# PYTHON chooses the interpreter, VENV the environment's folder, EXTRAS what is installed for tests.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev

define install
if command -v uv >/dev/null; then uv pip install --python $(VENV)/bin/python -q -e "$(1)"; \
else $(VENV)/bin/python -m pip install -q --disable-pip-version-check -e "$(1)"; fi
endef

demo: $(VENV)/.ready
	@$(VENV)/bin/crate-interp maskcut --model photo --coco photos --block -2 --refine crf --output runs/demo

test: $(VENV)/.ready-$(EXTRAS)
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "crate-interp needs Python 3.10 or later; name one with PYTHON=...")'
	@echo "Making a Python environment in $(VENV) ..."
	@if command -v uv >/dev/null; then uv venv --python $(PYTHON) --seed $(VENV); else $(PYTHON) -m venv $(VENV); fi

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml
	@echo "Installing crate-interp with torch and timm; the download takes 2 to 4 minutes ..."
	@$(call install,.)
	@touch $@

$(VENV)/.ready-$(EXTRAS): $(VENV)/bin/python pyproject.toml
	@echo "Installing crate-interp with its test tools ($(EXTRAS)); the download takes 2 to 4 minutes ..."
	@$(call install,.[$(EXTRAS)])
	@touch $@ $(VENV)/.ready

.PHONY: demo test
