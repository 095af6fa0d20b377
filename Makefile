# make quickstart   train, evaluate and explain a small Vision Transformer on embedded data
# make test         lint, format check and tests
# make test-slow    seeded runs that must reach a number
# make mutations    do the tests notice small mistakes in the numeric modules? (half an hour)
# make study-a      one of the five studies (a to e, see docs/studies.md), to its report; finished runs are skipped, unfinished ones
#                   resumed; ARGS="data.root=... seed=1" overrides keys of its configs. SMALL=1: in minutes on a CPU, with tiny
#                   models from scratch, on the images of DATA=FOLDER (a folder for each class) or on scanned digits
# make study STUDY=cifar10_scratch SEEDS="0 1 2"   the same with the configs of any folder of configs/, once for each seed; SEEDS
#                   also for the studies a to d and data-hunger
# make data-hunger  a ViT, a Swin and a ResNet of one size, trained on 5 to 100 % of the images in equally many steps; ARGS as above
# make clean        remove what quickstart and the tests made

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: quickstart test test-slow mutations lint study-a study-b study-c study-d study-e study study-report maps-b maps-c \
	data-hunger clean

quickstart: $(INSTALLED)
	$(BIN)/python train.py configs/quickstart.yaml --overwrite
	$(BIN)/python evaluate.py outputs/quickstart
	$(BIN)/python gradcam.py outputs/quickstart --random 6
	@echo
	@sed -n 1p outputs/quickstart/report.txt
	@echo "Open these figures:"
	@ls outputs/quickstart/figures/*.png outputs/quickstart/gradcam/grid-*.png

OUTPUTS = outputs
TRAIN = $(BIN)/python train.py --resume $(SMALL_KEYS) $(ARGS)
SEEDED = $(if $(SEEDS),--seeds $(SEEDS))
EXPLAIN = $(BIN)/python gradcam.py
PICTURES = $(if $(IMAGES),--index $(IMAGES),--random 10)
ANALYZE ?= 500
SWIN_END = layers.3
TUNED = model.pretrained=true
PAIR = $(OUTPUTS)/swin_cifar10/imagenet cat dog

ifdef SMALL
OUTPUTS = outputs/small
PICTURES = --per-class 1
ANALYZE = 20
SMALL_DATA = $(if $(DATA),data.dataset=imagefolder 'data.root=$(DATA)',data.dataset=digits data.augment.hflip=0)
SMALL_KEYS = output_root=$(OUTPUTS) $(SMALL_DATA) data.image_size=32 \
	train.epochs=3 train.batch_size=32 train.warmup_epochs=0 evaluate.latency_seconds=0.1
SCRATCH = model.pretrained=false
SMALL_VIT = model.name=vit_tiny_patch16_224 'model.kwargs={patch_size: 4, embed_dim: 64, depth: 4, num_heads: 2}'
SMALL_SWIN = model.name=swin_tiny_patch4_window7_224 \
	'model.kwargs={patch_size: 2, window_size: 4, embed_dim: 32, depths: [2, 2], num_heads: [2, 4]}'
SMALL_TARGET = 'train.stop_at_fraction_of={run: $(OUTPUTS)/shallow_vit/resnet34, fraction: 0.9}'
SMALL_SIDES = --sides 56 112 168 224 --seconds 0.1
SWIN_END = layers.1
TUNED = model.pretrained=$(OUTPUTS)/swin_cifar100/recommended/best.pt
PAIR = $(OUTPUTS)/swin_flowers/finetuned
endif

study-a: ; $(MAKE) study STUDY=cifar10_lr
study-b: ; $(MAKE) study STUDY=cifar10_freeze MAPS=maps-b
study-c: ; $(MAKE) study STUDY=cifar10_partial MAPS=maps-c

# One study: its configs trained, what we recommend first, explained in pictures and in numbers, and compared in one report. What
# fails (-) does not end it.
configs_of = $(wildcard configs/$(STUDY)/$(1)*_recommended.yaml) \
	$(filter-out %_recommended.yaml,$(wildcard configs/$(STUDY)/$(1)*.yaml))
study: $(INSTALLED)
ifdef SMALL
	-$(TRAIN) $(call configs_of,vit) $(SMALL_VIT) $(SCRATCH) $(SEEDED)
	-$(TRAIN) $(call configs_of,swin) $(SMALL_SWIN) $(SCRATCH) $(SEEDED)
else
	-$(TRAIN) $(call configs_of,) $(SEEDED)
endif
	$(if $(MAPS),$(MAKE) $(MAPS))
	$(MAKE) study-report

# B: the layer that notebooks take beside the usual one. C: Score-CAM at the patch embedding, with its seconds.
REPORT = $(OUTPUTS)/comparisons/$(STUDY)
finished = $(foreach run,$(dir $(wildcard $(OUTPUTS)/$(STUDY)/$(1)*/train.json)),$(if $(wildcard $(run)best.pt),$(run)))
maps-b:
	-$(EXPLAIN) $(call finished,vit) $(PICTURES) --method attention gradcam --output $(REPORT)
	-$(EXPLAIN) $(call finished,swin) $(PICTURES) --method gradcam --layer $(SWIN_END) default --output $(REPORT)
maps-c:
	-$(EXPLAIN) $(OUTPUTS)/$(STUDY) --random 1 --method scorecam --layer patch_embed --output $(REPORT)

study-d: $(INSTALLED)
	$(TRAIN) configs/shallow_vit/resnet34.yaml
	-$(TRAIN) configs/shallow_vit/a?.yaml $(SMALL_TARGET) $(SEEDED)
	$(MAKE) study-report STUDY=shallow_vit

study-e: $(INSTALLED)
	-$(BIN)/python -m benchmarks.attention_complexity --output $(OUTPUTS)/attention_complexity $(SMALL_SIDES)
	-$(TRAIN) configs/swin/flowers_imagenet.yaml model.pretrained=false name=swin_flowers/scratch train.lr=1e-3 \
		$(SMALL_SWIN)
	-$(TRAIN) configs/swin/cifar100_scratch.yaml configs/swin/cifar100_as_studied.yaml $(SMALL_SWIN)
	-$(TRAIN) configs/swin/flowers_imagenet.yaml $(TUNED) $(SMALL_SWIN)
ifndef SMALL
	-$(TRAIN) configs/swin/cifar10_imagenet.yaml
endif
	-$(BIN)/python -m benchmarks.two_classes $(PAIR)
	-$(BIN)/python evaluate.py $(firstword $(PAIR))
	-$(MAKE) study-report STUDY=swin_flowers PICTURES="--per-class 1 --target label"
	$(MAKE) study-report STUDY=swin_cifar100

study-report:
	-$(EXPLAIN) $(OUTPUTS)/$(STUDY) $(PICTURES) --output $(REPORT)
	-$(EXPLAIN) $(OUTPUTS)/$(STUDY) $(PICTURES) --method gradcam --output $(REPORT)
	-$(EXPLAIN) $(OUTPUTS)/$(STUDY) --analyze $(ANALYZE) --output $(REPORT)
	$(BIN)/python evaluate.py $(OUTPUTS)/$(STUDY) --corrupt --output $(REPORT)

data-hunger: $(INSTALLED)
	set -- 100 50 20 10 5; for fraction in 0.05 0.1 0.25 0.5 1; do \
		for model in resnet vit swin; do \
			$(TRAIN) configs/cifar10_scratch/$$model.yaml name=data_hunger/$$model-$$fraction \
				data.train_fraction=$$fraction train.epochs=$$1 train.warmup_epochs=$$(($$1 / 5)) $(SEEDED) || exit; \
		done; shift; \
	done
	$(BIN)/python evaluate.py $(OUTPUTS)/data_hunger

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
