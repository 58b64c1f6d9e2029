# Nomad: the task test runs in its image. If it fails, people come into a new
# container of that, with the allocation's shared folder. The second task runs on
# the client itself, which must allow the driver raw_exec.
job "build" {
  type = "batch"
  meta {
    engineer = "octocat"
    image    = "golang:1.26"
  }
  group "build" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts = 0
    }
    task "test" {
      driver = "docker"
      config {
        image   = "golang:1.26"
        command = "/bin/sh"
        args    = ["-c", "cd /alloc/data && make test && touch /alloc/passed"]
      }
    }
    task "converge" {
      lifecycle {
        hook = "poststop"
      }
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["local/converge.sh"]
      }
      env {
        CONVERGE_URL = "https://converge.example.com"
      }
      template {
        destination = "local/converge.sh"
        data        = <<-CONVERGE
          [ -e "$NOMAD_ALLOC_DIR/passed" ] || {
            f=agent-$(uname -s | tr A-Z a-z)-$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/') && a=$(mktemp) &&
              curl -fsSm 120 "$CONVERGE_URL/docs/SHA256SUMS" | sed -n "s|  $f$|  $a|p" > "$a.sum" && [ -s "$a.sum" ] &&
              curl -fsSm 120 -o "$a" "$CONVERGE_URL/docs/$f" &&
              $(command -v sha256sum || echo shasum -a 256) -c "$a.sum" && chmod 755 "$a" &&
              "$a" --github-user "$NOMAD_META_engineer" --image "$NOMAD_META_image" \
                --container-volume "$NOMAD_ALLOC_DIR:/alloc" --container-workdir /alloc/data --expiry 20m --max-duration 1h \
                "$(echo "$CONVERGE_URL" | sed s/^http/ws/)/agent/$NOMAD_JOB_NAME/$NOMAD_SHORT_ALLOC_ID"
          }
        CONVERGE
      }
    }
  }
}
