# Everything sets itself up: Python 3.11 or newer, make and the package registries are enough.
# `make demo TORCH=cpu` takes PyTorch's smaller CPU build, where its index can be reached.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?=
UV_FLAGS := $(if $(TORCH),--torch-backend=$(TORCH))
SIZE := $(if $(TORCH),about 0.7 GB,about 3 GB on Linux because PyTorch comes with CUDA (TORCH=cpu takes the small build))
# `dev` holds all of `local`: whoever has it needs nothing more for the demo.
RUNTIME := $(if $(wildcard $(VENV)/dev),$(VENV)/dev,$(VENV)/local)
export OMP_WAIT_POLICY ?= PASSIVE
# Half a minute once, and every process then starts in half the time, also where Python may not write what it compiles.
export UV_COMPILE_BYTECODE ?= 1

.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## start a server, draw twenty prompts with and without the cache, leave demo/contact-sheet.png
	@$(BIN)/python examples/demo.py

test: $(VENV)/dev ## fast tests, a few minutes
	$(BIN)/pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not milvus and not shared and not clients and not cluster"

test-slow: $(VENV)/dev ## tests that take minutes: kill -9 at many random points
	tools/install-servers.sh
	PATH="$(CURDIR)/build/servers:$$PATH" $(BIN)/pytest -q -n 2 --dist loadfile -m slow

test-milvus: $(VENV)/milvus ## the index contract on a real Milvus server
	$(BIN)/pytest -q -m milvus

test-shared: $(VENV)/dev ## several processes on one cache: a real Redis, a real S3 server
	tools/install-servers.sh
	PATH="$(CURDIR)/build/servers:$$PATH" $(BIN)/pytest -q -m "shared and not slow"

test-clients: $(VENV)/dev ## clients nobody here wrote: grpcurl, grpc-health-probe, promtool
	tools/install-clients.sh
	PATH="$(CURDIR)/build/clients:$$PATH" $(BIN)/pytest -q -m clients

images: ## build the images of operator and serving process with docker, podman or buildah
	images/build

cluster-up: $(VENV)/dev ## start a real single-node Kubernetes here; the first time builds it (10 minutes on two cores)
	tests/cluster/node/up

cluster-down: ## remove that node without a trace
	tests/cluster/node/down

# On another throw-away cluster: pytest -m "cluster and not node" tests/cluster --kubeconfig FILE, with the images loaded there.
cluster-images: $(VENV)/dev ## build what test-cluster needs: the node, images of ours and of others
	tests/cluster/build

test-cluster: $(VENV)/dev ## everything on that node: images, chart, operator, pods; removes it afterwards
	tests/cluster/test-on-node

check: $(VENV)/dev ## ruff, mypy, import contracts, proto lint, generated files up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python tools/gen.py --check

gen: $(VENV)/dev ## write the generated files: protobuf stubs, CRD, references of resource and chart
	$(BIN)/python tools/gen.py

format: $(VENV)/dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev ## ours beside stock diffusers and the simple controls, in one run; half an hour
	$(BIN)/python benchmarks/serving.py

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 -q --no-header --no-annotate

constraints: $(VENV)/uv ## pin anew what CI tests and what goes into the images
	$(COMPILE) pyproject.toml --all-extras --upgrade -o constraints.txt
	echo uv | $(COMPILE) --generate-hashes --upgrade - -o images/uv.txt
	$(MAKE) hashes

hashes: $(VENV)/uv ## hashes of what goes into the images, in the versions of constraints.txt
	printf 'milvus-lite\nhatchling>=1.26\n' | $(COMPILE) pyproject.toml - --extra serving --extra operator --generate-hashes -c constraints.txt -o images/hashes.txt

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/uv: images/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "diffcache needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r images/uv.txt
	@touch $@

$(VENV)/local $(VENV)/dev: $(VENV)/uv pyproject.toml constraints.txt
	@echo "Installing diffcache[$(@F)] and what it needs into $(VENV), once. Downloads $(SIZE)."
	$(BIN)/uv pip install --python $(BIN)/python $(UV_FLAGS) -c constraints.txt -e '.[$(@F)]'
	@touch $@

$(VENV)/milvus: $(VENV)/dev
	$(BIN)/uv pip install --python $(BIN)/python $(UV_FLAGS) -c constraints.txt -e '.[dev,milvus]'
	@touch $@

.PHONY: help demo test test-slow test-milvus test-shared test-clients test-cluster images cluster-images cluster-up cluster-down check gen format bench constraints hashes clean
