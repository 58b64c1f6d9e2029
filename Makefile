# Everything a newcomer types. The recipes are scripts/, which also run alone.
# Variables given on the command line (PORT=, FUZZTIME=, ...) reach them
# through the environment.

.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: build build-downloads image image-guest image-gitgate run test test-ship test-wine tidy fmt cover fuzz soak bench rename release tag version clean help

build: ## Build the programs for this machine into bin/
	@scripts/build

build-downloads: ## Cross-compile what the server hands out [DOWNLOADS=bin/downloads] [PLATFORMS="linux/amd64 ..."]
	@scripts/build-downloads

image: ## Build the server's container image, or dispatch's [TOOL=dispatch] [IMAGE=converge-server] [ENGINE=docker] [ARCH=amd64]
	@scripts/image

image-guest: ## Build the image to copy guest from [IMAGE=converge-guest] [ENGINE=docker] [ARCH=amd64]
	@scripts/image-guest

image-gitgate: ## Build gitgate's container image [IMAGE=converge-gitgate] [ENGINE=docker] [BASE=debian:12-slim]
	@scripts/image-gitgate

run: ## Start a server and an agent here, print the lines to paste [PORT=8080] [LISTEN=127.0.0.1]
	@scripts/run

test: ## Install what the tests need, then check everything that CI checks
	@scripts/test

test-ship: ## Build, install and run what is shipped: packages, image, chart
	@scripts/test-ship

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

release: ## Make all files of a release [SIGNING_KEY=FILE OPENPGP_KEY=KEY], VERSION=v0.2.0
	@scripts/release "$(VERSION)"

tag: ## Show the tags of a release, VERSION=v0.2.0; DRY_RUN=no sets them
	@scripts/tag "$(VERSION)"

version: ## Set the version of all modules before a release, VERSION=v0.2.0
	@scripts/set-version "$(VERSION)"

clean: ## Remove what the other targets made
	@rm -rf bin

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-16s %s\n' "$$target" "$$text"; done
