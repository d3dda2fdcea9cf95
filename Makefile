PYTHON ?= python3
BIN := .venv/bin
SPREAD := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-wide lint benchmark docs

.venv/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

quickstart: .venv/.installed
	$(BIN)/python launch.py

test: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	TEST_DEVICES=1 $(BIN)/python -m pytest $(SPREAD) -m 'not devices and not wide'
	$(BIN)/python -m pytest $(SPREAD) -m 'devices and not wide' $$(grep -rl mark.devices tests --include='test_*.py')

test-wide: .venv/.installed
	$(BIN)/python -m pip install --quiet -e '.[test,gcs-test,onnx]'
	$(BIN)/python -m pytest -n auto -m wide

lint: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed
	$(BIN)/python -m mkdocs build

benchmark: .venv/.installed
	$(BIN)/python -m benchmarks
