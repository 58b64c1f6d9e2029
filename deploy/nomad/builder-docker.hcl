# The builder of dispatch, each build in a container of its own. The image has what
# builds need, and git, and for debug sessions curl and perhaps converge-agent:
# deploy/container/Containerfile.builder makes one.
#   nomad run -var image=registry.example.org/builder:1 deploy/nomad/builder-docker.hcl
variable "image" {
  type    = string
  default = "converge-builder:1"
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

job "builder" {
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

    task "executor" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image      = var.image
        entrypoint = []
        command    = "/bin/sh"
        args       = ["/local/build.sh"]
        work_dir   = "/local"
        init       = true
        pids_limit = 8192
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
      logs {
        max_files     = 4
        max_file_size = 25
      }
      resources {
        cpu    = var.cpu
        memory = var.memory
      }
    }
  }
}
