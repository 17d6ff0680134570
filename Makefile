# The commands people type, and the order of the chapters. `make help` lists them.
PROFILE ?= smoke
DATA ?= data/miniature
PYTHON ?= python3

# Names that make or the shell would take apart are refused here, in one sentence and for every command alike
empty :=
blank := $(empty) $(empty)
tab := $(empty)	$(empty)
hash := \#
ODD := $$ % : ; = $(hash) [ ] ( ) { } & | < > * ? ! ' " ` \ ^
odd-in = $(strip $(foreach sign,$(ODD),$(if $(findstring $(sign),$(1)),$(sign))) \
	$(if $(findstring $(blank),$(1))$(findstring $(tab),$(1)),a blank))
define refuse-odd
ifeq ($$(value $(1)),)
$$(error $(1) is empty; expected $(2))
endif
ifneq ($$(call odd-in,$$(value $(1))),)
$$(error $(1) holds $$(call odd-in,$$(value $(1))), which make cannot handle; expected $(2), or a symbolic link to it with a plain name)
endif
endef
$(eval $(call refuse-odd,DATA,a folder))
$(eval $(call refuse-odd,PROFILE,smoke or mini or full))

# The last part of DATA names the run. The project's own folder may have any name: nothing below depends on it
here := $(subst $(blank),|,$(CURDIR))
data-folder := $(abspath $(if $(filter /%,$(DATA)),$(DATA),$(here)/$(DATA)))
name := $(notdir $(data-folder))
ifneq ($(call odd-in,$(name)),)
$(error DATA is the folder '$(subst |,$(blank),$(name))', a name that make cannot handle; expected a symbolic link to it with a plain name)
endif
ifeq ($(data-folder),$(here)/data/miniature)
override DATA := data/miniature
endif

BIN := .venv/bin
RUN := data/runs/$(PROFILE)-$(name)
DONE := $(RUN)/nbs
RUNNER := $(BIN)/deepfake-nbs run
FROM_RUN = -p profile $(PROFILE) -p data $(DATA)

# Threads that spin for long while they wait slow each other down on a shared machine; those that never spin are slow on a quiet one
export GOMP_SPINCOUNT = 2000

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup lock report prepare pages library test coverage bench site lab demo publish keep readme weights weights-runs

help:
	@echo "make report [PROFILE=smoke|mini|full] [DATA=folder]   set up, run all pages of the report in order, say where the results are"
	@echo "make test       set up, run every test"
	@echo "make coverage   run the tests of the package and report the lines that none reaches"
	@echo "make library    run the chapters that explain how the package is built"
	@echo "make lab        set up, open the chapters in JupyterLab"
	@echo "make demo       the application as a page in the browser, on this machine alone"
	@echo "make site       render the site with Quarto"
	@echo "make publish    execute pages and library chapters with PROFILE=mini, and copy their outputs into nbs/"
	@echo "make weights DATA=..   train the networks that the package ships, on photographs, and write them; about two hours on 2 cores"
	@echo "make keep [PROFILE=..] [DATA=..]   keep the numbers of a finished report in papers/results"
	@echo "make readme     write the findings, the figure and the check of README.md again from kept numbers"
	@echo "make bench [DATA=..]   measure speed, memory and two detectors from scratch, as ratios against a peer"
	@echo "make lock       renew requirements.lock from pyproject.toml"

# --- Setting up ------------------------------------------------------------------------------------------------------

# Our own environment is brought up to date, in place; one that was not made here is never touched (see the file).
# `exec`, here and below: a signal that make passes on must reach the program, not a shell that waits for it
setup:
	@exec "$$(test -x $(BIN)/python && echo $(BIN)/python || echo "$(PYTHON)")" .ci/environment.py "$(PYTHON)"

lock: setup
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --extra dev pyproject.toml -o requirements.lock

# --- The report ------------------------------------------------------------------------------------------------------

# The plan is what make would run now, in order: so a page can say that it is the 7th of 20, and how long the rest takes.
# It may hold a page that turns out to be up to date: only a run shows whether a dataset was built anew
report: prepare
	@rows="$$(test ! -x $(BIN)/python || $(BIN)/python -c 'from deepfake_nbs.settings import read_settings; print(*read_settings("$(PROFILE)").paged_runs)')" && \
	rest="$$(test ! -x $(BIN)/python || $(BIN)/python -c 'from deepfake_nbs.settings import read_settings; s = read_settings("$(PROFILE)"); print(*sorted({*s.runs} - {*s.paged_runs}))')" && \
	plan="$$($(MAKE) --no-print-directory -n pages ROWS="$$rows" TOGETHER="$$rest" | sed -n 's|^$(RUNNER) [^ ]* \([^ ]*\).*|\1|p')" && \
	DEEPFAKE_NBS_PLAN="$$plan" exec $(MAKE) --no-print-directory pages ROWS="$$rows" TOGETHER="$$rest"
	@echo
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.classifiers.findings import describe_findings; print(*describe_findings("$(RUN)"), sep="\n")'
	@echo
	@echo "Done: $(RUN)"
	@echo "  nbs/           the executed pages (start with index.ipynb)"
	@echo "  figures/       tables/       what the pages saved, listed in artifacts.csv"
	@echo "  claims.csv     every number of the published report beside ours"
	@echo "  next:          $(BIN)/deepfake-nbs check PHOTO --run $(RUN)"

# Draws the embedded data where they are asked for, and writes what the pages depend on (only when it changed)
prepare: setup
ifeq ($(DATA),data/miniature)
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.miniature.drawing import draw_profile; draw_profile("$(PROFILE)")'
endif
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.pages import freeze_inputs; freeze_inputs("$(PROFILE)", "$(DATA)")'

pages: $(DONE)/index.ipynb
	@:

# Which modules a notebook needs stands in its code; the rules are made from there whenever a notebook or a module changed
DEPENDENCIES := data/dependencies.mk
NOTEBOOKS := $(wildcard nbs/*.ipynb nbs/library/*.ipynb)
$(DEPENDENCIES): .ci/dependencies.py $(NOTEBOOKS) $(wildcard deepfake_nbs/*.py deepfake_nbs/*/*.py)
	@mkdir -p $(@D) && "$(PYTHON)" .ci/dependencies.py > $@.new && mv -f $@.new $@
-include $(DEPENDENCIES)

INPUTS := $(RUN)/settings.json $(RUN)/inputs.csv
$(INPUTS): ;

# Frames with head boxes are optional: a data root without them gets no detector, and no cropped dataset
FOUND_HEADS := $(if $(wildcard $(DATA)/*/Annotations),$(DONE)/02_head_detection.ipynb)
CROPS := $(if $(FOUND_HEADS),$(RUN)/cvcs_cropped_dfd/dataset.json)

# A page of the report depends on the settings, the inputs and what earlier pages left; behind | stands mere order
$(DONE)/01_datasets.ipynb: $(INPUTS) $(if $(wildcard $(RUN)/cvcs_dfd/dataset.json),,missing)
.PHONY: missing
missing: ;
$(DONE)/02_head_detection.ipynb: $(INPUTS) $(RUN)/cvcs_dfd/dataset.json | $(DONE)/01_datasets.ipynb
# It comes before the networks in the report, and runs after them: one of its features is the classifier that page 06a chose
$(DONE)/03_image_retrieval.ipynb: $(INPUTS) $(RUN)/cvcs_dfd/dataset.json $(DONE)/06a_classifiers.ipynb
$(DONE)/04_baselines.ipynb: $(RUN)/settings.json $(RUN)/cvcs_dfd/dataset.json $(CROPS) | $(DONE)/01_datasets.ipynb $(FOUND_HEADS)
# What the training runs left; the three pages on them write to one list of claims, one after the other
TRAINED := $(if $(TOGETHER),$(RUN)/training/together.txt) $(foreach row,$(ROWS),$(DONE)/06_training_run-$(row).ipynb)
$(DONE)/06a_classifiers.ipynb: $(RUN)/settings.json $(DONE)/04_baselines.ipynb $(TRAINED)
$(DONE)/06d_comparisons.ipynb $(DONE)/06e_report_reading.ipynb: $(RUN)/settings.json $(TRAINED) | $(DONE)/06a_classifiers.ipynb
$(DONE)/05_architectures.ipynb: $(RUN)/settings.json | $(DONE)/04_baselines.ipynb
# Pages of the audit read what the pages above left; 06c shows searches, which `deepfake-nbs search` makes
$(DONE)/06c_search.ipynb: $(RUN)/settings.json $(wildcard $(RUN)/search/*.log) | $(DONE)/06a_classifiers.ipynb
$(DONE)/06f_errors.ipynb: $(RUN)/settings.json $(DONE)/06a_classifiers.ipynb
$(DONE)/09a_defects.ipynb: $(RUN)/settings.json $(RUN)/cvcs_dfd/dataset.json $(CROPS) $(DONE)/06a_classifiers.ipynb
$(DONE)/09b_transfer.ipynb: $(RUN)/settings.json $(DONE)/06a_classifiers.ipynb $(FOUND_HEADS)
$(DONE)/09c_robustness.ipynb: $(RUN)/settings.json $(DONE)/04_baselines.ipynb $(DONE)/06a_classifiers.ipynb
$(DONE)/09d_calibration.ipynb: $(RUN)/settings.json $(DONE)/06a_classifiers.ipynb
$(DONE)/09e_heatmaps.ipynb: $(RUN)/settings.json $(DONE)/06a_classifiers.ipynb
AUDIT := $(patsubst %,$(DONE)/%.ipynb,06c_search 06f_errors 09a_defects 09b_transfer 09c_robustness 09d_calibration 09e_heatmaps)
$(DONE)/model_card.ipynb: $(wildcard deepfake_nbs/weights/photographs/*) | $(DONE)/ethics.ipynb
$(DONE)/reproduce_one_number.ipynb: $(RUN)/settings.json $(DONE)/04_baselines.ipynb $(DONE)/06a_classifiers.ipynb
# It shows kept numbers, of no run of this report
$(DONE)/06b_photographs.ipynb: $(wildcard papers/results/*) | $(DONE)/06a_classifiers.ipynb
$(DONE)/07_our_faces.ipynb $(DONE)/08_demo.ipynb: $(DONE)/06a_classifiers.ipynb $(DONE)/03_image_retrieval.ipynb $(FOUND_HEADS)
$(DONE)/ethics.ipynb: $(DONE)/06a_classifiers.ipynb | $(DONE)/08_demo.ipynb
$(DONE)/all_numbers.ipynb: $(DONE)/01_datasets.ipynb $(FOUND_HEADS) $(DONE)/03_image_retrieval.ipynb $(DONE)/04_baselines.ipynb $(DONE)/05_architectures.ipynb $(DONE)/06a_classifiers.ipynb $(DONE)/06d_comparisons.ipynb $(DONE)/06e_report_reading.ipynb $(DONE)/07_our_faces.ipynb $(wildcard papers/results/*)
$(DONE)/conclusions.ipynb: $(DONE)/all_numbers.ipynb
$(DONE)/index.ipynb: $(DONE)/all_numbers.ipynb $(DONE)/conclusions.ipynb | $(DONE)/05_architectures.ipynb $(DONE)/06b_photographs.ipynb $(DONE)/08_demo.ipynb $(DONE)/ethics.ipynb $(AUDIT) $(DONE)/model_card.ipynb $(DONE)/reproduce_one_number.ipynb

# The dataset's marker is older than the page that checked it when nothing had to be rebuilt
$(RUN)/cvcs_dfd/dataset.json: $(DONE)/01_datasets.ipynb ;
$(RUN)/cvcs_cropped_dfd/dataset.json: $(DONE)/02_head_detection.ipynb ;

# A run's name: its configuration in table 1, then the seed, split and schedule where they are not the profile's: 8, 1-published, 1-seed2-published, 8-cosine
words-of-run = $(subst -, ,$*)
changes-of-run = $(patsubst seed%,-p seed %,$(filter seed%,$(words-of-run))) $(patsubst %,-p protocol %,$(filter published,$(words-of-run))) \
	$(patsubst %,-p schedule %,$(filter cosine,$(words-of-run)))
$(DONE)/06_training_run-%.ipynb: nbs/06_training_run.ipynb $(TRAINING) $(RUN)/settings.json $(RUN)/cvcs_dfd/dataset.json $(CROPS)
	@$(RUNNER) $< $@ $(FROM_RUN) -p row $(word 1,$(words-of-run)) $(strip $(changes-of-run)) -p overwrite True

# Runs without a page of their own, in one process
$(RUN)/training/together.txt: $(TRAINING) $(RUN)/settings.json $(RUN)/cvcs_dfd/dataset.json $(CROPS) | $(DONE)/04_baselines.ipynb
	@echo "Training runs $(TOGETHER) in one process: $(BIN)/deepfake-nbs train trains one"
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.classifiers.seeds import train_listed; print(*train_listed("$(PROFILE)", "$(DATA)"), sep="\n", file=open("$@", "w"))'

$(DONE)/%.ipynb: nbs/%.ipynb
	@$(RUNNER) $< $@ $(FROM_RUN)

# The chapters of the library teach how the package is built; `make test` runs their checks, and `make publish` their outputs
library: $(LIBRARY)
	@:

$(DONE)/library/%.ipynb: nbs/library/%.ipynb
	@$(RUNNER) $< $@

# --- Tests, measurements, pages --------------------------------------------------------------------------------------

# Two processes, a thread each: no more threads than the two cores that they need
test: export OMP_NUM_THREADS = 1
test: setup
	$(BIN)/nbdev-test --n-workers 2
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Which lines no test reaches, in the terminal and as pages in htmlcov/; slower than the tests alone
coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html

# The last line trains two detectors three times each: on the heads of DATA, BENCH_EPOCHS passes, hours on a large set without a GPU
BENCH_EPOCHS ?= 12

bench: prepare
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "timm>=1.0.15" "effdet>=0.4.1"
	$(BIN)/python bench/bench.py
	$(BIN)/python bench/bench_baselines.py
	$(BIN)/python bench/bench_heads.py train --data $(DATA)/heads --epochs $(BENCH_EPOCHS)

site:
	@command -v quarto > /dev/null || { echo "make site: quarto is not on PATH; install it from quarto.org, then try again" >&2; exit 1; }
	quarto render

NO_BROWSER = $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(BROWSER)$(filter Darwin,$(shell uname)),,--no-browser)

# The hook takes from a notebook what JupyterLab adds when it saves: a page that was only looked at leaves git clean
lab: setup
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb --ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(NO_BROWSER)

# voila.json keeps the page on this machine: it listens to no other, its pages may ask no other, and a large photograph fits
# A folder that was named and is none is an error; only where none was named and none is there does the report make one
DEMO_RUN ?=

demo: export DEEPFAKE_NBS_RUN := $(value DEMO_RUN)
demo: setup
	@$(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.application.models import find_run; find_run()' \
		$(if $(value DEMO_RUN),,2> /dev/null || exec $(MAKE) --no-print-directory report)
	@echo "The demo opens in a browser; stop it with Ctrl-C. DEMO_RUN=folder takes the networks of that run."
	export PATH="$$PWD/$(BIN):$$PATH"; exec $(BIN)/voila $(NO_BROWSER) nbs/08_demo.ipynb

keep: setup
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.publishing import keep_results; print(*keep_results("$(PROFILE)", "$(DATA)"), sep="\n")'

readme: setup
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.application.front import write_readme; print(*write_readme(), sep="\n")'

# The networks that the package ships, made again from photographs. The last runs, each without a family of sources, say how
# well they do on sources that they do not know
weights:
	@exec $(MAKE) --no-print-directory prepare weights-runs PROFILE=photographs DATA=$(DATA)

weights-runs: $(DONE)/06_training_run-12.ipynb
	@$(BIN)/deepfake-nbs train --profile $(PROFILE) --data $(DATA) --run-number 12 --leave-out-sources
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.application.shipping import choose_training, write_shipped; choose_training("$(RUN)"); print(write_shipped("$(RUN)"))'

publish: PROFILE = mini
publish:
	@$(MAKE) --no-print-directory report PROFILE=mini DATA=$(DATA)
	@$(MAKE) --no-print-directory library PROFILE=mini DATA=$(DATA)
	@exec $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; from deepfake_nbs.publishing import publish; publish("mini", "$(DATA)")'
	@$(MAKE) --no-print-directory readme
	$(BIN)/nbdev-clean
