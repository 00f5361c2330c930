# make demo   set up, render demo data, train the small model on it, evaluate, predict: the main job, on a laptop's CPU. Once more
#             it goes on where it was; a finished run is evaluated again only (make clean-demo demo trains anew)
# make serve  export the demo model, check it against the training graph, serve it with a page at http://127.0.0.1:8000; before
#             make demo has made one, the weights that come with the project
# make demo-weights   make those weights (ppmtl/demo) of what make demo has trained
# make test   set up, lint, type-check, run the tests
# make setup  the environment alone (in .venv)
# make parity compare our layers, transforms and metrics with the suites they reproduce (in .venv-suites; docs/parity.md)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DATA ?= demo_data
DEMO_OUT ?= output/allinone_demo

.PHONY: setup demo demo-weights serve test container-check lint clean-demo parity parity-setup

setup: $(VENV)/.ready

$(VENV)/.ready: requirements-base.txt requirements-cpu.txt requirements.txt requirements-vdl.txt requirements-dev.txt requirements-deploy.txt requirements-serving.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ppmtl needs Python 3.10 or newer; try make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: DEMO_STARTED := $(wildcard $(DEMO_OUT)/step_*)
demo: setup
	@echo "$(if $(DEMO_STARTED),$(DEMO_OUT) holds a run: going on with it (make clean-demo first trains anew),a new run in $(DEMO_OUT))"
	$(BIN)/python tools/make_demo_data.py --out $(DEMO_DATA) --preset demo
	$(BIN)/python tools/train.py -c configs/allinone_demo.yml --eval --nprocs 2 $(if $(DEMO_STARTED),-r) \
	    -o data_root=$(DEMO_DATA) save_dir=$(DEMO_OUT)
	$(BIN)/python tools/infer.py -c configs/allinone_demo.yml -o data_root=$(DEMO_DATA) weights=$(DEMO_OUT)/best_model \
	    --infer_dir $(DEMO_DATA)/track1_test_data/seg/images/test --limit 8 --output_dir $(DEMO_OUT)/infer
	$(BIN)/python tools/eval.py -c configs/allinone_demo.yml -o data_root=$(DEMO_DATA) weights=$(DEMO_OUT)/best_model \
	    save_dir=$(DEMO_OUT) --visualize 4
	$(BIN)/python tools/report.py $(DEMO_OUT)

serve: DEMO_WEIGHTS := $(or $(wildcard $(DEMO_OUT)/best_model),ppmtl/demo)
serve: setup
	@echo "the weights of $(DEMO_WEIGHTS)"
	$(BIN)/python tools/export_model.py -c configs/allinone_demo.yml -o data_root=$(DEMO_DATA) weights=$(DEMO_WEIGHTS)
	$(BIN)/python deploy/serving/serve.py --model_dir output_inference/allinone_demo

demo-weights: setup
	$(BIN)/python tools/make_demo_weights.py $(DEMO_OUT) --data_root $(DEMO_DATA)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ppmtl tools
	$(BIN)/mypy deploy

test: setup lint
	$(BIN)/python -m pytest -n 2

# The Dockerfile's steps in a fresh environment, without a container engine; takes a minute and a gigabyte.
container-check: setup
	PPMTL_CONTAINER_CHECK=1 $(BIN)/python -m pytest tests/deploy/test_docker.py tests/deploy/test_deploy_end_to_end.py -rs

clean-demo:
	rm -rf $(DEMO_DATA) $(DEMO_OUT)

SUITES_VENV ?= .venv-suites
SUITES := $(SUITES_VENV)/bin

# The second environment: each reference alone and without its dependencies; one that this platform does not have is left out,
# and its rows then say "not run".
parity-setup: $(SUITES_VENV)/.ready

$(SUITES_VENV)/.ready: requirements-suites.txt requirements-suites-deps.txt requirements.txt requirements-base.txt requirements-cpu.txt requirements-vdl.txt
	$(PYTHON) -m venv $(SUITES_VENV)
	$(SUITES)/python -m pip install --quiet --disable-pip-version-check -r requirements-suites-deps.txt
	@grep -v '^#' requirements-suites.txt | while IFS= read -r package; do \
	    echo "$$package" | $(SUITES)/python -m pip install --quiet --disable-pip-version-check --no-deps -r /dev/stdin \
	    || echo "left out: $$package"; done
	@touch $@

parity: parity-setup
	OMP_NUM_THREADS=1 $(SUITES)/python -m pytest -m parity -W ignore tests/parity tests/ops/test_wbf.py
