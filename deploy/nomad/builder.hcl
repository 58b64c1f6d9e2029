# The builder of dispatch: one task of the machine's own programs, of which it
# needs git, and curl for debug sessions. Nobody's code is kept from the machine's
# files by raw_exec; exec has a chroot and the user nobody; builder-docker.hcl is
# for strangers. docs/dispatch.md tells more.
#   nomad run deploy/nomad/builder.hcl
#   nomad run -var driver=raw_exec deploy/nomad/builder.hcl
variable "driver" {
  type    = string
  default = "exec"
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
      driver       = var.driver
      kill_timeout = "30s"

      config {
        command = "/bin/sh"
        args    = ["${NOMAD_TASK_DIR}/build.sh"]
      }
      dispatch_payload {
        file = "payload"
      }
      env {
        BUILDER_TIMEOUT     = var.timeout
        BUILDER_SECRET_FILE = var.driver == "exec" ? "/var/run/secrets/albatros/secret.txt" : ""
      }
      template {
        data            = file(fileexists("build.sh") ? "build.sh" : "deploy/nomad/build.sh")
        destination     = "local/build.sh"
        perms           = "0755"
        change_mode     = "noop"
        left_delimiter  = "[[[["
        right_delimiter = "]]]]"
      }
      # In the chroot the folder is root's, so the file has to be there.
      template {
        data        = "\n"
        destination = "var/run/secrets/albatros/secret.txt"
        perms       = "0600"
        uid         = 65534
        gid         = 65534
        change_mode = "noop"
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
