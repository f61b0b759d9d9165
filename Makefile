# Two commands do all set-up: `make demo` and `make test`. Both use one virtual environment, made when it is missing.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
# Images of the demonstration's measurements, composed once; without them each step composes hundreds to thousands.
COMPOSE ?= --per-class 40
# Options of the measurements: images, seconds, and limits that so few images can show to be kept.
BENCH ?= --duration 2 --images digits
# Options of the first measurement: none, as it is one of the three commands.
BARE ?=
TUNE ?= --max-drop 3 --images digits
EVALUATE ?= --limit 100 --images digits
QUANTIZE ?= --images digits
RECOMMEND ?= --max-drop 3
GPU_DAY ?= --minutes 12
BIN := $(abspath $(VENV))/bin

# Seconds of fuzzing.
FUZZ ?= 600

.PHONY: demo test docs fuzz lint gpu-day clean

demo: $(VENV)/.demo
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/sait-deploy export --density 0.6
	cd $(DEMO) && $(BIN)/sait-deploy build-engine
	cd $(DEMO) && $(BIN)/sait-deploy bench $(BARE)
	cd $(DEMO) && $(BIN)/sait-deploy predict $(abspath sait_deploy/demo/images/7) --visualize pictures
	cd $(DEMO) && $(BIN)/python $(abspath samples/compose_digits.py) digits $(COMPOSE)
	cd $(DEMO) && $(BIN)/sait-deploy export --mass 0.95 --mass 0.8
	cd $(DEMO) && $(BIN)/sait-deploy build-engine --target sm86,sm89,sm120
	cd $(DEMO) && $(BIN)/sait-deploy bench -o adaptive.html $(BENCH)
	cd $(DEMO) && $(BIN)/sait-deploy predict $(abspath sait_deploy/demo/images) --point mass0.8 --visualize sheet
	cd $(DEMO) && $(BIN)/sait-deploy tune $(TUNE)
	cd $(DEMO) && $(BIN)/sait-deploy evaluate $(EVALUATE) -o evaluation.svg
	cd $(DEMO) && $(BIN)/sait-deploy quantize $(QUANTIZE)
	cd $(DEMO) && $(BIN)/sait-deploy bench --runtime onnxruntime,openvino --precision fp32,bf16,int8 --batch 8 -o precisions.json $(BENCH)
	cd $(DEMO) && $(BIN)/sait-deploy recommend --bench precisions.json $(RECOMMEND) -o choice.html
	cd $(DEMO) && $(BIN)/python $(abspath samples/ask_server.py) artifacts/sait_demo_digits-adaptive $(abspath sait_deploy/demo/images/7/0.png)
	@echo "reports: $(DEMO)/adaptive.html, choice.html; pictures: $(DEMO)/pictures, $(DEMO)/sheet/contact-sheet.png, evaluation.svg"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# The site, in build/docs/index.html. Warnings are errors.
docs: $(VENV)/.test
	$(BIN)/python -m sphinx -W --keep-going -q -d build/trees docs build/docs

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.hostile.fuzz $(FUZZ)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On a machine with a GPU and a torch for it; `make gpu-day GPU_DAY=--dry-run` tries every step on a processor.
gpu-day: $(VENV)/.test
	$(BIN)/python -m benchmarks.gpu_day $(GPU_DAY)

clean:
	rm -rf build dist *.egg-info

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[train,cpu,openvino,rtx,serve]'
	touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
