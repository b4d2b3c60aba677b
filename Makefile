# Two commands, each from nothing: `make run` (the whole pipeline, on a CPU) and `make test`.
# The lines are what a person would type. What is done is not done again; to do a step again,
# remove its notebook from results/.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin/python
RUN := make
STEPS := 03_training 04_evaluation 00_quickstart 01_soft_labels 02_domain_alignment 07_report
TABLE := results/04_evaluation.$(RUN)/metrics.json

DATA := data/raw
TAPVID := https://storage.googleapis.com/dm-tapnet
URL_tapvid-davis := $(TAPVID)/tapvid_davis.zip
URL_tapvid-rgb-stacking := $(TAPVID)/tapvid_rgb_stacking.zip
URL_tapvid-kinetics := $(TAPVID)/tapvid_kinetics.zip

.PHONY: run setup test test-browser
.DELETE_ON_ERROR:

run: $(STEPS:%=results/%.$(RUN).ipynb)
	@$(BIN) -m corrlib table $(TABLE)
	@echo
	@echo "Notebooks, executed:" && ls $^
	@echo "Pictures and films:" && ls results/*.$(RUN)/figures/*.png results/*.$(RUN)/*.webm 2>/dev/null || true
	@echo "Checkpoint:" && ls results/03_training.$(RUN)/*.safetensors

setup: .venv/.ready

test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN) -m pytest

# The explorer in JupyterLab, in a Chromium found on this machine; skips, and says so, where there is none.
test-browser: .venv/.ready
	@$(BIN) -c "import playwright" 2>/dev/null || $(BIN) -m pip install -q --disable-pip-version-check "playwright>=1.45" \
		|| echo "make test-browser: playwright could not be installed."
	OMP_NUM_THREADS=1 $(BIN) -m pytest -rs tests/browser.py

.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN) -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

# A notebook takes its profile for CPUs where it has one; its copy appears when all of it has run.
.SECONDEXPANSION:
results/%.$(RUN).ipynb: notebooks/%.ipynb $$(wildcard notebooks/params/$$*.cpu.yaml) | .venv/.ready
	@echo "$* ..."
	$(BIN) -m corrlib run-notebook $* $(patsubst %,-f %,$(filter %.yaml,$^)) \
		-p RUN_NAME $(RUN) -p OVERWRITE true

# Each of these reads what the training wrote.
results/04_evaluation.$(RUN).ipynb results/00_quickstart.$(RUN).ipynb results/01_soft_labels.$(RUN).ipynb: \
		results/03_training.$(RUN).ipynb
results/07_report.$(RUN).ipynb: results/04_evaluation.$(RUN).ipynb

# Data sets whose publisher offers a plain file (data/README.md), one when you ask for it: make data-tapvid-davis.
# A download that was cut off goes on where it stopped. No publisher here states a size or a checksum; the
# archive's own checksum of each file in it is checked, and nothing appears in its place before that.
data-%: FILE = $(DATA)/TAP-Vid/$(notdir $(URL_$*))
data-%:
	@test -n "$(URL_$*)" || { echo "make data-$*: no plain file of that name; there are \
	$(patsubst URL_%,data-%,$(filter URL_%,$(.VARIABLES))). See data/README.md for the others."; exit 1; }
	@mkdir -p $(dir $(FILE))
	@test -e $(FILE) || { curl --fail --location --retry 2 --continue-at - --output $(FILE).partial $(URL_$*) \
		&& mv $(FILE).partial $(FILE); } || { echo "make data-$*: $(URL_$*) could not be fetched. Without a network, \
	fetch it elsewhere, put it at $(FILE), and run this again."; exit 1; }
	@rm -rf $(FILE).new && $(PYTHON) -m zipfile -e $(FILE) $(FILE).new || { rm -rf $(FILE).new; echo \
		"make data-$*: $(FILE) should be a whole .zip archive, and is not. Remove it and run this again."; exit 1; }
	@cp -R $(FILE).new/. $(dir $(FILE)) && rm -rf $(FILE).new && ls -d $(basename $(FILE))*
