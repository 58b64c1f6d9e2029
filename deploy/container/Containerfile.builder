# What builds run in, for deploy/nomad/builder-docker.hcl and nixcache.hcl: git to
# clone, curl to tell dispatch of a debug session, and the agent, so that it need not
# be fetched. Put beside them what your builds want. In a folder that holds the agent
# (go build -o agent ./agent, with CGO_ENABLED=0):
#   docker build -t converge-builder:1 -f Containerfile.builder .
FROM debian:12-slim

RUN apt-get update \
 && apt-get install --yes --no-install-recommends bash ca-certificates curl git openssh-client procps \
 && rm -rf /var/lib/apt/lists/*
COPY agent /usr/bin/converge-agent
