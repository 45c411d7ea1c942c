# `make` alone says what there is.
SHELL := bash
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# Installed once: again only when a pin changes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed  ## make .venv and install the project with its pinned dependencies

# The demo has a store of its own, so that it never deletes the tables of another. It refuses where another store is
# named, and where the folder `demo` holds something that it did not make itself.
DEMO_STORE := $(CURDIR)/feature_repo/feature_store.demo.yaml
NAMED_STORE := $(FEAST_FS_YAML_FILE_PATH)
MADE_BY_DEMO := demo/made-by-make-demo

# Each step's seconds go to demo/timings.txt, which the report shows; what the step says goes to the terminal.
SHOP_ENDS := 2026-03-02T00:00:00
define step
@echo "$$ $(1)"
@TIMEFORMAT='%R $(wordlist 1,2,$(filter-out cd feature_repo &&,$(1)))'; { time { $(1); } 2>&3; } 3>&2 2>>demo/timings.txt
endef

check-demo:
	@test -z "$(NAMED_STORE)" || { echo "error: FEAST_FS_YAML_FILE_PATH is $(NAMED_STORE), but the demo uses a store of" \
		"its own; run: env -u FEAST_FS_YAML_FILE_PATH make demo" >&2; exit 1; }
	@test ! -e demo || test -e $(MADE_BY_DEMO) || { echo "error: this version's demo did not make the folder demo, and" \
		"would delete it; move it away if it holds tables of your own, else remove it" >&2; exit 1; }

demo: export FEAST_FS_YAML_FILE_PATH := $(DEMO_STORE)
demo: check-demo .venv/installed  ## from a generated shop to a measured AUC lift: demo/report.html
	@rm -rf demo && mkdir demo && touch $(MADE_BY_DEMO)
	$(call step,produce shop --output demo/shop --products 8000 --users 1500 --days 60 --seed 0)
	$(call step,produce catalogue --products demo/shop/products.parquet)
	$(call step,produce encoder --data demo/shop --output demo/encoder \
		--align demo/shop/impressions.parquet --test-days 17)
	$(call step,produce embeddings --encoder demo/encoder)
	$(call step,produce tags --labels demo/shop/labels.parquet)
	$(call step,produce codes)
	$(call step,produce interests --impressions demo/shop/impressions.parquet)
	$(call step,produce neighbours --impressions demo/shop/impressions.parquet)
	$(call step,cd feature_repo && feast apply)
	$(call step,cd feature_repo && feast materialize-incremental $(SHOP_ENDS))
	$(call step,consume tags-report)
	$(call step,consume lift --impressions demo/shop/impressions.parquet --truth demo/shop/truth --test-days 10 \
		--seeds 3 --permutations 5 --ablation-rows 60000 \
		--json demo/lift.json --report demo/report.html --timings demo/timings.txt)
	$(call step,consume freshness --now $(SHOP_ENDS)+00:00 --max-age 2d)
	@awk '{ total += $$1 } END { printf "demo: %.0f seconds; report: demo/report.html\n", total }' demo/timings.txt

test: .venv/installed  ## lint, types, the docs and every fast test, side by side
	$(MAKE) --no-print-directory --jobs 2 check test-fast

check: .venv/installed  ## lint, types and the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --quiet

test-fast: .venv/installed  ## every fast test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/installed  ## the slow tests too
	$(BIN)/pytest -m ''

docs: .venv/installed  ## the documentation site: build/site/index.html
	$(BIN)/mkdocs build --quiet

lock: .venv/installed  ## write the installed versions to constraints.txt
	echo '# Every version in one place, as `make lock` writes them.' > constraints.txt
	pip freeze --exclude-editable | sed 's/+cpu//' >> constraints.txt

bench: .venv/installed  ## beside Feast's own stores and raw clients: tests/benchmarks/RESULTS.md
	python -W ignore -m tests.benchmarks.online redis --record
	python -W ignore -m tests.benchmarks.online redis --dim 512 --record
	python -W ignore -m tests.benchmarks.online lmdb --record
	python -W ignore -m tests.benchmarks.online lmdb --dim 512 --record
	python -W ignore -m tests.benchmarks.online memory --record
	python -W ignore -m tests.benchmarks.online growth --record
	python -W ignore -m tests.benchmarks.materialize script --record
	python -W ignore -m tests.benchmarks.materialize lmdb --record
	python -W ignore -m tests.benchmarks.materialize stock --record
	python -W ignore -m tests.benchmarks.precision vectors --record
	python -W ignore -m tests.benchmarks.encoding cpu --record
	python -W ignore -m tests.benchmarks.asof vectors --record
	python -W ignore -m tests.benchmarks.asof normalised --record
	python -W ignore -m tests.benchmarks.asof large --record
	python -W ignore -m tests.benchmarks.serving turns --record
	python -W ignore -m tests.benchmarks.serving stock --record
	python -W ignore -m tests.benchmarks.serving load --record
	python -W ignore -m tests.benchmarks.streaming --record

.PHONY: help install check-demo demo test check test-fast test-all docs lock bench
