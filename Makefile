# make quickstart   train, evaluate and explain a small Vision Transformer on embedded data
# make test         lint, format check and tests
# make test-slow    seeded runs that must reach a number
# make mutations    do the tests notice small mistakes in the numeric modules? (half an hour)
# make study-a      one of the five studies (a to e, see docs/studies.md), to its report; finished runs are skipped, unfinished ones
#                   resumed; ARGS="data.root=... seed=1" overrides keys of its configs
# make clean        remove what quickstart and the tests made

PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow mutations lint study-a study-b study-c study-d study-e study clean

quickstart: .venv/installed
	$(BIN)/python train.py configs/quickstart.yaml --overwrite
	$(BIN)/python evaluate.py outputs/quickstart
	$(BIN)/python gradcam.py outputs/quickstart --random 6
	@echo
	@sed -n 1p outputs/quickstart/report.txt
	@echo "Open these figures:"
	@ls outputs/quickstart/figures/*.png outputs/quickstart/gradcam/grid-*.png

study-a: ; $(MAKE) study STUDY=cifar10_lr
study-b: ; $(MAKE) study STUDY=cifar10_freeze
study-c: ; $(MAKE) study STUDY=cifar10_partial
study-d: .venv/installed
	$(BIN)/python train.py configs/shallow_vit/resnet34.yaml --resume $(ARGS)
	$(MAKE) study STUDY=shallow_vit
study-e: .venv/installed
	$(BIN)/python -m benchmarks.attention_complexity
	$(BIN)/python train.py configs/swin/cifar100_scratch.yaml --resume $(ARGS)
	$(BIN)/python evaluate.py outputs/cifar100_scratch --corrupt
	$(BIN)/python gradcam.py outputs/cifar100_scratch --index $(IMAGES)

# One study: its configs trained, explained on ten test images and in numbers, and compared in one report.
REPORT = outputs/comparisons/$(STUDY)
IMAGES ?= 3 17 42 107 256 512 777 1024 2048 4096
ANALYZE ?= 500
study: .venv/installed
	$(BIN)/python train.py configs/$(STUDY)/*.yaml --resume $(ARGS)
	$(BIN)/python gradcam.py outputs/$(STUDY)/*/ --index $(IMAGES) --output $(REPORT)
	$(BIN)/python gradcam.py outputs/$(STUDY)/*/ --analyze $(ANALYZE) --output $(REPORT)
	$(BIN)/python evaluate.py outputs/$(STUDY)/*/ --corrupt --output $(REPORT)

test: lint
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -q -m slow

mutations: .venv/installed-dev
	$(BIN)/python -m benchmarks.mutations

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: requirements.txt constraints.txt
	@echo "Installing the packages of requirements.txt, in the versions of constraints.txt, into .venv; PyTorch is large, this takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache outputs/quickstart
