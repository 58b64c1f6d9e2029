# The builder of dispatch with a nix store that stays on the machine, in
# /var/cache/albatros: in a build `nix build` alone works. A build sees the store
# read-only; what writes is a nix daemon in a container of its own. The docker
# driver has to allow volumes. docs/dispatch.md tells more.
#   nomad run deploy/nomad/nixcache.hcl
variable "image" {
  type        = string
  default     = "converge-builder:1"
  description = "what builds run in, as for builder-docker.hcl; it needs no nix"
}

variable "nix" {
  type    = string
  default = "nixos/nix:2.31.2"
}

variable "cpu" {
  type    = number
  default = 1000
}

variable "memory" {
  type    = number
  default = 2048
}

variable "timeout" {
  type        = number
  default     = 7200
  description = "seconds that a build may take; a debug session has its own limit"
}

job "nixcache" {
  namespace = "ci"
  type      = "batch"

  parameterized {
    payload       = "optional"
    meta_required = ["REPO_URL", "COMMIT", "BRANCH", "FLAVOR"]
    meta_optional = [
      "DISPATCH_ENVELOPE", "DISPATCH_REPO", "DISPATCH_SENDER", "DISPATCH_KIND", "DISPATCH_PULL",
      "DISPATCH_TRUSTED", "DISPATCH_APPROVED_BY", "DISPATCH_RERUN_OF", "DISPATCH_NONCE",
    ]
  }

  group "runner" {
    # A build that fails has failed: it is not Nomad's to repeat.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    ephemeral_disk {
      size = 4096
    }

    # Makes the store if there is none, and brings it up to the image's nix.
    task "store" {
      lifecycle {
        hook = "prestart"
      }
      driver = "docker"
      config {
        image      = var.nix
        entrypoint = []
        command    = "/bin/sh"
        args       = ["/local/nixcache.sh", "store"]
        volumes    = ["/var/cache/albatros:/cache"]
      }
      template {
        data            = file(fileexists("nixcache.sh") ? "nixcache.sh" : "deploy/nomad/nixcache.sh")
        destination     = "local/nixcache.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      resources {
        cpu    = 200
        memory = 512
      }
    }

    # The daemon has the image's programs from the store, so it starts when task
    # store has filled that: until then its shell is not there.
    task "daemon" {
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      restart {
        attempts = 100
        interval = "1h"
        delay    = "3s"
        mode     = "fail"
      }
      driver = "docker"
      config {
        image      = var.nix
        entrypoint = []
        command    = "/bin/sh"
        args       = ["/local/nixcache.sh", "daemon"]
        volumes    = ["/var/cache/albatros/nix:/nix"]
      }
      template {
        data            = file(fileexists("nixcache.sh") ? "nixcache.sh" : "deploy/nomad/nixcache.sh")
        destination     = "local/nixcache.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      resources {
        cpu    = var.cpu
        memory = var.memory
      }
    }

    task "executor" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image      = var.image
        entrypoint = []
        command    = "/bin/sh"
        args       = ["/local/nixcache.sh", "build"]
        work_dir   = "/local"
        init       = true
        pids_limit = 8192
        volumes    = ["/var/cache/albatros/nix:/nix:ro"]
        # The secrets are in memory alone.
        mount {
          type     = "tmpfs"
          target   = "/var/run/secrets"
          readonly = false
          tmpfs_options {
            size = 1048576
          }
        }
      }
      dispatch_payload {
        file = "payload"
      }
      env {
        BUILDER_TIMEOUT     = var.timeout
        BUILDER_SECRET_FILE = "/var/run/secrets/albatros/secret.txt"
      }
      template {
        data            = file(fileexists("build.sh") ? "build.sh" : "deploy/nomad/build.sh")
        destination     = "local/build.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      template {
        data            = file(fileexists("nixcache.sh") ? "nixcache.sh" : "deploy/nomad/nixcache.sh")
        destination     = "local/nixcache.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      logs {
        max_files     = 4
        max_file_size = 25
      }
      resources {
        cpu    = var.cpu
        memory = var.memory
      }
    }

    # What nobody has built for seven days goes.
    task "gc" {
      lifecycle {
        hook = "poststop"
      }
      driver = "docker"
      config {
        image      = var.nix
        entrypoint = []
        command    = "/bin/sh"
        args       = ["/local/nixcache.sh", "gc"]
        volumes    = ["/var/cache/albatros/nix:/nix"]
      }
      template {
        data            = file(fileexists("nixcache.sh") ? "nixcache.sh" : "deploy/nomad/nixcache.sh")
        destination     = "local/nixcache.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      resources {
        cpu    = 200
        memory = 512
      }
    }
  }
}
