# make quickstart   train, evaluate and explain a small Vision Transformer on embedded data
# make test         lint, format check and tests
# make test-slow    seeded runs that must reach a number
# make clean        remove what quickstart and the tests made

PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow lint clean

quickstart: .venv/installed
	$(BIN)/python train.py configs/quickstart.yaml --overwrite
	$(BIN)/python evaluate.py outputs/quickstart
	$(BIN)/python gradcam.py outputs/quickstart --random 6
	@echo
	@sed -n 1p outputs/quickstart/report.txt
	@echo "Open these figures:"
	@ls outputs/quickstart/figures/*.png outputs/quickstart/gradcam/grid-gradcam.png

test: lint
	$(BIN)/python -m pytest -q

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: requirements.txt
	@echo "Installing the packages of requirements.txt into .venv; PyTorch is large, this takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache outputs/quickstart
