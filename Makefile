# Two commands, each from nothing: `make run` (the whole pipeline, on a CPU) and `make test`.
# The lines are what a person would type. What is done is not done again; to do a step again,
# remove its notebook from results/.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin/python
RUN := make
STEPS := 03_training 04_evaluation 00_quickstart 01_soft_labels
TABLE := results/04_evaluation.$(RUN)/metrics.json

.PHONY: run test
.DELETE_ON_ERROR:

run: $(STEPS:%=results/%.$(RUN).ipynb)
	@$(BIN) -m corrlib table $(TABLE)
	@echo
	@echo "Notebooks, executed:" && ls $^
	@echo "Pictures and films:" && ls results/*.$(RUN)/figures/*.png results/*.$(RUN)/*.webm 2>/dev/null || true
	@echo "Checkpoint:" && ls results/03_training.$(RUN)/*.safetensors

test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN) -m pytest

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
