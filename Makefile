# Everything a newcomer types. The recipes are scripts/, which also run alone.
# Variables given on the command line (PORT=, FUZZTIME=, ...) reach them
# through the environment.

.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: build build-downloads run test test-wine tidy fmt cover fuzz soak bench rename clean help

build: ## Build the programs for this machine into bin/
	@scripts/build

build-downloads: ## Cross-compile what the server hands out [DOWNLOADS=bin/downloads] [PLATFORMS="linux/amd64 ..."]
	@scripts/build-downloads

run: ## Start a server and an agent here, print the lines to paste [PORT=8080] [LISTEN=127.0.0.1]
	@scripts/run

test: ## Install what the tests need, then check everything that CI checks
	@scripts/test

test-wine: ## Run the agent for Windows under wine, which it installs (700 MB)
	@scripts/test-wine

tidy: ## Run go mod tidy in every module
	@scripts/tidy

fmt: ## Format every Go file
	@scripts/format

cover: ## Say how much of pkg its tests cover
	@scripts/cover

fuzz: ## Fuzz every decoder for a while each [FUZZTIME=1m]
	@FUZZTIME="$${FUZZTIME:-1m}" scripts/fuzz

soak: ## Kill, cut and stall under real transfers for long, 1 GiB included [SOAK=10m]
	@scripts/soak

bench: ## Measure everything beside its peers, about an hour [BENCH="--only relay --rounds 3"]
	@scripts/bench $(BENCH)

rename: ## Change the module path everywhere, MODULE=example.org/team/converge
	@scripts/rename "$(MODULE)"

clean: ## Remove what the other targets made
	@rm -rf bin

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-16s %s\n' "$$target" "$$text"; done
